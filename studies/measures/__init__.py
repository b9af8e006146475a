"""What docs/measures.md says of the measures and intervals, simulated."""
