"""Forms of conversations in rows: OpenAI's messages, ShareGPT, Alpaca, prompt and completion, preferences."""
