"""What a person starts: flows wire tasks together, the command line starts flows."""
