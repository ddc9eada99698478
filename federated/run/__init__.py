"""The coordinator's folder of a run: what lies in it, and what it says."""
