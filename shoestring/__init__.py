"""shoestring: the DeepSeek system, whole and open, from tokenizer to chat page."""

__version__ = "0.1.0"
