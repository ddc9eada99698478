"""pFL-ResFIM: which values are sensitive to a site, found by Fisher information."""
