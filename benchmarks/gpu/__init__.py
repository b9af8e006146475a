"""How fast Segue is on a GPU, in one process and under eight minutes: `python -m benchmarks.gpu`."""
