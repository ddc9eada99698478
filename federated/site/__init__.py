"""What is a site's own: its home's releases, and the ledger of who holds its data."""
