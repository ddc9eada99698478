"""Twelve small runs whose results are known: moving code about changes none of them."""
