"""The classic exercise: scratch, fine-tune, fine-tune with a Q-filter: `python -m studies.exercise`."""
