"""Twelve small runs whose results are known, so that moving code about can be seen to change none."""
