"""Data set families, partitions over sites, scanner profiles and phantoms."""
