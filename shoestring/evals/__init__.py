"""Evaluation of a model: figures with their intervals, and manifests that repeat them."""
