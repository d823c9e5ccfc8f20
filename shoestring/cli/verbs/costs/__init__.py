"""Verbs that say what something costs."""
