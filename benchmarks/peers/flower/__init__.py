"""Flower: its simulation, in an environment of its own."""
