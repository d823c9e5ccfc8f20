"""Tokenizer, special tokens, chat templates, and prompts as token ids."""
