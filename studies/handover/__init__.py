"""The collapse at the handover, and what each bridge does to it."""
