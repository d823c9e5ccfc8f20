"""The corpus of a recipe: conversations of worked problems to pretrain on, and a tokenizer for them."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoestring.data.scratchwork import Scratchwork, write
from shoestring.distill.collect import CONVERSATIONS
from shoestring.durable import write_atomic
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate

_TAGS = re.compile("</?think>")


@dataclass(frozen=True, kw_only=True)
class CorpusStage:
    """Conversations that a program writes, and a tokenizer trained on them."""

    conversations: int
    seed: int = 0
    vocab_size: int = 0
    """Size of a tokenizer trained on them; 0: no tokenizer."""
    mix: Scratchwork = field(default_factory=Scratchwork)


def write_corpus(config: CorpusStage, folder: Path) -> dict[str, Any]:
    """Write conversations.jsonl and, if asked for, a tokenizer with our chat template; returns figures."""
    text = write(config.mix, config.seed, config.conversations)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / CONVERSATIONS, text)
    figures = {"conversations": config.conversations, "bytes": len(text.encode())}
    if config.vocab_size:
        conversations = (json.loads(line)["messages"] for line in text.splitlines())
        contents = (message["content"] for messages in conversations for message in messages)
        texts = (part for content in contents for part in _TAGS.split(content))
        tokenizer = Tokenizer.train(texts, config.vocab_size)
        tokenizer.save(folder / "tokenizer")
        DeepSeekTemplate().save(folder / "tokenizer")
        figures["vocabulary"] = tokenizer.vocab_size
    return figures
