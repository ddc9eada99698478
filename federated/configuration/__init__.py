"""The sections of params.yaml, how they go together, and what is said of those that do not."""
