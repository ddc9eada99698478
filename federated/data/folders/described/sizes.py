"""How much of an image a network sees where its description leaves that open (`auto`)."""

# What a network sees at once has about so many voxels at most.
MOST_VOXELS = 64**3
# The longest side in pixels of pictures, and in voxels of volumes that are classified.
LONGEST_PICTURE, LONGEST_VOLUME = 256, 64
