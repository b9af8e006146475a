"""When the plain switch collapses: `python -m studies.collapse`."""
