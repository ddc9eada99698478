"""What is a site's own: its home's releases."""
