"""Chat templates: conversations to token ids, by our own template or any Jinja template."""
