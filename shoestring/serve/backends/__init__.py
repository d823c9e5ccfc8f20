"""Chat backends: a conversation in, one stream of deltas out; a model in this process, or another server."""
