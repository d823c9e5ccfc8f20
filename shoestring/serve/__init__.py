"""The service: one model or many behind the APIs that clients already speak."""
