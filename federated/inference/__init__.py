"""Models in use: prediction and evaluation on other data."""
