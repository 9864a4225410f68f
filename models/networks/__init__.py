"""Inputs of networks and trees: conformers, features, tokens, pretrained weights, and their caches."""
