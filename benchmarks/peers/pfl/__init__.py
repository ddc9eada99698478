"""pfl-research, in an environment of its own."""
