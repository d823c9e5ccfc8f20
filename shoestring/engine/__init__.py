"""Serving many requests at once: scheduling, paged cache, sampling, speculation, constrained output."""
