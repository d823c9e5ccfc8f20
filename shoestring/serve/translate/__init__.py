"""Translation by a chat model: texts, tags, glossaries and documents."""
