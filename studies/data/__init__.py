"""Benchmark data that anybody can make again: `python -m studies.data`."""
