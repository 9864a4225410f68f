"""The one training loop of the neural stages, and what it is made of."""
