"""What passes between the parties of a run: signed messages, and what each party checks of them."""
