"""A site's home, and keys derived from its secrets."""
