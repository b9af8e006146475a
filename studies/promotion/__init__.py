"""Recipes against RLPD from scratch with the dataset, on the same live budget: `python -m studies.leaderboard`."""
