"""What a model is worth, as figures that can be compared."""
