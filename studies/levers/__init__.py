"""What each lever does to one handover: `python -m studies.levers`."""
