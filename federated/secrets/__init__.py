"""A site's home, and the keys that are derived from its secrets."""
