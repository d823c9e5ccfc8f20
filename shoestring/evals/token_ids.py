"""Log-probability of texts that are given as token ids, for models without a tokenizer."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shoestring.errors import ConfigError
from shoestring.evals.loglikelihood import score_continuations
from shoestring.evals.perplexity import TextEvalConfig
from shoestring.model.transformer import Transformer
from shoestring.tokenizer.token_ids import read_token_ids


def read_id_files(sources: Sequence[str], vocab_size: int) -> list[list[int]]:
    """The texts of files with one text of ids on each line. Raises ConfigError for anything else."""
    rows = []
    for source in sources:
        path = Path(source)
        if not path.is_file():
            raise ConfigError(
                f"this model has no tokenizer, so --source must be a file of token ids with one text on each "
                f"line; there is no file {source}"
            )
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        rows += [read_token_ids(line, vocab_size, str(path)) for line in lines if line.strip()]
    return rows


def score_ids(model: Transformer, config: TextEvalConfig) -> dict[str, Any]:
    """Nats per token of the texts in the sources: each token but the first of a text is predicted once.

    Texts are cut into windows of `seq_len` tokens. Raises ConfigError.
    """
    if config.below is not None:
        raise ConfigError("below is a limit of bits per byte, and a model without tokenizer has no bytes")
    length, budget, windows = config.seq_len, config.max_tokens or sys.maxsize, []
    for ids in read_id_files(config.sources, model.config.vocab_size):
        for start in range(0, len(ids) - 1, length):
            row = ids[start : start + length + 1][: budget + 1]
            if len(row) > 1:
                windows.append((row[:1], row[1:]))
                budget -= len(row) - 1
    if not windows:
        raise ConfigError("the sources hold no text of two token ids or more")
    scores = score_continuations(model, windows, max_length=length)
    tokens = sum(len(continuation) for _, continuation in windows)
    nats = -sum(score.logprob for score in scores) / tokens
    return {"nll_per_token": nats, "perplexity": math.exp(min(nats, 700.0)), "tokens": tokens}
