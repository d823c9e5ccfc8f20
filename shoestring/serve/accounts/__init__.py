"""Accounts: people, their passwords and codes, sessions, API keys, and who may do what."""
