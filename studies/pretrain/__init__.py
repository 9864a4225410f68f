"""Pre-training of small weights of Uni-Mol, and how it is done again."""
