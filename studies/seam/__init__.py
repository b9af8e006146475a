"""The collapse at the switch, and what each bridge does to it."""
