"""Compressors and counts of n-grams, which a language model has to be better than."""
