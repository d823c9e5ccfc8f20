"""Training: steps, optimizers, checkpoints, and the stories that use them."""
