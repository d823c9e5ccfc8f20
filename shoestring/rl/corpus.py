"""The corpus of a recipe: conversations of worked problems, a tokenizer for them, and preference pairs."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoestring.data.scratchwork import Scratchwork, write
from shoestring.data.smalltalk import write_pairs
from shoestring.distill.collect import CONVERSATIONS
from shoestring.durable import write_atomic
from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate

PAIRS = "pairs.jsonl"
_TAGS = re.compile("</?think>")


@dataclass(frozen=True, kw_only=True)
class CorpusStage:
    """Conversations that a program writes, a tokenizer trained on them, and pairs of replies."""

    conversations: int = 0
    pairs: int = 0
    """Pairs of replies to small talk, a better and a worse one (data/smalltalk.py), in pairs.jsonl."""
    seed: int = 0
    vocab_size: int = 0
    """Size of a tokenizer trained on them; 0: no tokenizer."""
    mix: Scratchwork = field(default_factory=Scratchwork)

    def __post_init__(self) -> None:
        if self.conversations < 0 or self.pairs < 0 or not self.conversations + self.pairs:
            raise ConfigError("the corpus is empty; set conversations, or pairs, to a number over 0")
        if self.vocab_size and not self.conversations:
            raise ConfigError("a tokenizer needs conversations; set their number, or leave out vocab_size")


def write_corpus(config: CorpusStage, folder: Path) -> dict[str, Any]:
    """Write conversations.jsonl, pairs.jsonl and a tokenizer, as the stage asks for them; returns figures."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"conversations": config.conversations, "pairs": config.pairs}
    text = ""
    if config.conversations:
        text = write(config.mix, config.seed, config.conversations)
        write_atomic(folder / CONVERSATIONS, text)
    if config.pairs:
        write_atomic(folder / PAIRS, write_pairs(config.seed, config.pairs))
    figures["bytes"] = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
    if config.vocab_size:
        conversations = (json.loads(line)["messages"] for line in text.splitlines())
        contents = (message["content"] for messages in conversations for message in messages)
        texts = (part for content in contents for part in _TAGS.split(content))
        tokenizer = Tokenizer.train(texts, config.vocab_size)
        tokenizer.save(folder / "tokenizer")
        DeepSeekTemplate().save(folder / "tokenizer")
        figures["vocabulary"] = tokenizer.vocab_size
    return figures
