"""Models on packed int8 and 4-bit weights: their layers, and quantization while a checkpoint is read."""
