"""The dossier of a model: its card, its exchange formats, its materials, and what is signed."""
