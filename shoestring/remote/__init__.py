"""Chat completions of any OpenAI-compatible server: vLLM, SGLang, llama.cpp, DeepSeek."""
