"""Routes about one's own account."""
