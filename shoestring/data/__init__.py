"""Files to documents to rows of tokens: every byte with its origin, every position resumable."""
