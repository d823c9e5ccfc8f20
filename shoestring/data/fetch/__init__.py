"""Corpora of free text from the Python package index and Debian, each with the licenses of its parts."""
