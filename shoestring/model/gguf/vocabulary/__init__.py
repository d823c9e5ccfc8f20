"""Vocabularies in GGUF metadata: ways to split text, scores, roles of tokens, chat templates."""
