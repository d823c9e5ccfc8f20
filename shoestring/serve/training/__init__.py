"""Training runs as the service shows them: read from their folders while they go on, stopped and resumed."""
