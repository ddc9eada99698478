"""NVIDIA FLARE: its simulator, in an environment of its own."""
