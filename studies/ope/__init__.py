"""Off-policy evaluation where the truth is known: random, clinicians' and optimal treatment of sepsis."""
