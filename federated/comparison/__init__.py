"""Strategies side by side: which runs a comparison has, its table and its figure."""
