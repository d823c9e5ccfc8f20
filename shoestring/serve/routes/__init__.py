"""Routes of the service, one file for each API; every route says who may call it."""
