"""Hugging Face's layout in and out: config.json, safetensors, names, FP8, adapters, the hub."""
