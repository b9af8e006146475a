"""How often the offline verdict says that a policy is better, where none is and where one is."""
