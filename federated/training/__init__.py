"""What a site does with its cases: the loop, its objective and its optimiser."""
