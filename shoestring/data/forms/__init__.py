"""Forms of conversations: as rows have them, as one form of messages, and as a chat template writes them."""
