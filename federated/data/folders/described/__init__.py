"""Data sets without code: what a description and a folder say, as the values that families give."""
