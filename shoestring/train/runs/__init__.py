"""Runs: the settings that all have, which of them a resume may change, and their list."""
