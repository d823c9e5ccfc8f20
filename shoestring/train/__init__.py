"""Training: the loop, its step, optimizers and checkpoints; pretraining and fine-tuning, which use them."""
