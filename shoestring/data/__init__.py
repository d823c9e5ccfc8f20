"""Training data: files to documents to rows of token ids, with the source of every byte and exact resume."""
