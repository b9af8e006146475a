"""When the plain handover collapses: `python -m studies.collapse`."""
