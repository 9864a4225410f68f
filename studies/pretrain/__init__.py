"""Pre-training of the small weights of Uni-Mol that come with the project."""
