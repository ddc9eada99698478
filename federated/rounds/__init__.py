"""A round as pure functions of values: who takes part, what sites train, what comes of a sum."""
