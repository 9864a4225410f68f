"""What a network or a tree reads: conformers, features, tokens, weights, and their caches."""
