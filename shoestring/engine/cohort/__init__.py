"""Cohorts: many sequences that decode together, a token a step, with their state in arrays."""
