"""How often live evidence errs, and how soon it decides."""
