"""Costs as pure functions: FLOPs of steps, plans of training and serving, published runs, footprints."""
