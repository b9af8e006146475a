"""Training: the shared update, the handover at the seam, the offline loop and the online loop."""
