"""What sites may know of each other's images, and the network that is planned from it."""
