"""Verbs that train a model."""
