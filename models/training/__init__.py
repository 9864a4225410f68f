"""The training loop of all neural stages."""
