"""Dialects: the requests and replies of each API, translated to and from those of a backend."""
