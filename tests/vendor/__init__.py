"""What we tell NVIDIA's package, told to the package itself: a release that takes something else fails here."""
