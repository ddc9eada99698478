"""A round's stages: read, call one pure function, write."""
