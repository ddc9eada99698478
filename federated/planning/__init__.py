"""What sites may know of each other's images, and what is planned and harmonised by it."""
