"""Training: the shared update, the handover, the offline loop and the online loop."""
