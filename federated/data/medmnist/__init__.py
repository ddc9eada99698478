"""The sets of MedMNIST, and phantoms of their schema."""
