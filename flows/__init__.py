"""What a person starts: flows wire tasks together, and the command line starts flows."""
