"""The command line: parse, build, call; the only room that knows all others."""
