"""Pages for people: the status of the service, and the figures on it."""
