"""Admission: how many connections, requests and tokens a caller may have, and whose turn it is."""
