"""Conversations of a recipe: sources with weights, encoding, counts of what is left out, and a preview."""
