"""Parts of LLM for scripts written for vLLM: its arguments, tokenizer, tools, and others; and its plan."""
