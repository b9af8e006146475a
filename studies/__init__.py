"""Studies: each a folder with one command, its results as small files, a figure or table, and what was found."""
