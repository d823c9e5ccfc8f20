"""Revisions of the tables, the oldest first."""
