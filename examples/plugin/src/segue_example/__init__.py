"""Parts for Segue from another package."""
