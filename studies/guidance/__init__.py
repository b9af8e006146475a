"""SAMG on top of four algorithms, against each of them alone: `python -m studies.guidance`."""
