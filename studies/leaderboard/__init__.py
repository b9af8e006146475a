"""Recipes against RLPD from scratch with the log, on the same live budget: `python -m studies.leaderboard`."""
