"""Training: steps, optimisers, checkpoints, and the stories that use them."""
