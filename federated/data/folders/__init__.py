"""Data sets that are folders of files: volumes and pictures, their masks, and their patients."""
