"""Recommendation: off-policy evaluation on real clicks, and a simulated shop that goes live."""
