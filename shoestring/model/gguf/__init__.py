"""GGUF, the file format of llama.cpp: export of a model to one file, and import from it."""
