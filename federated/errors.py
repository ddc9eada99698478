"""What is said to a person when their input cannot be used."""


class ConsiliumError(Exception):
    """One paragraph for a person: what is wrong, where, and what to do."""
