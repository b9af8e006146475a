"""Worker processes, and who attends to them on the node of a cluster; nothing here imports JAX."""
