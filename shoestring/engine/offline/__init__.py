"""Parts of LLM for scripts written for vLLM: its arguments, tokenizer, tools, beam search and metrics."""
