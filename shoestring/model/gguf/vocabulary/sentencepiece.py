"""SentencePiece vocabularies in GGUF metadata: scores of tokens, and tokenizer.json's merges.

SentencePiece merges the pair of neighbors whose token has the highest score; tokenizer.json lists the pairs
in that order. Both give the same ids when no two tokens have the same score.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from shoestring.errors import CheckpointError, TokenizerError
from shoestring.model.gguf.file import GGUFFile
from shoestring.tokenizer import sentencepiece
from shoestring.tokenizer.sentencepiece import SPACE

Pair = tuple[str, str]


def read_model(file: GGUFFile, vocab: Mapping[str, int], mergeable: Iterable[str]) -> dict[str, Any]:
    """The model of a tokenizer.json. `mergeable` are the tokens that text is merged to.

    Raises CheckpointError for scores from which the order of merges cannot be known.
    """
    scores = file.metadata.get("tokenizer.ggml.scores")
    if (
        not isinstance(scores, np.ndarray)
        or scores.dtype.kind not in "iuf"
        or len(scores) <= max(vocab.values())
    ):
        raise CheckpointError(f"{file.path} does not have one score for each of its tokens")
    score_of = {token: float(scores[vocab[token]]) for token in mergeable}
    splits = {token: pairs for token in score_of if (pairs := _splits(token, score_of))}
    whole = (token for token in score_of if len(token) > 1 and token not in splits)
    strangers = [token for token in whole if any(char not in score_of for char in token)]
    if strangers:
        raise CheckpointError(
            f"{file.path} has the token {strangers[0][:40]!r} and no token for a character of it"
        )
    (score, count), *_ = [*Counter(score_of[token] for token in splits).most_common(1), (0.0, 0)]
    if count > 1:
        raise CheckpointError(
            f"{file.path} gives {count} tokens the score {score:g}, so the order of merges cannot be known; "
            "convert the model again"
        )
    return {
        "type": "BPE",
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": dict(vocab),
        "merges": [list(pair) for pair in _ordered(splits, score_of)],
    }


def steps(prefix: bool) -> dict[str, Any]:
    """Normalizer and decoder of a tokenizer.json; with `prefix` every text gets a space first."""
    prepend = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    escape = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    unescape = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    decoders = [unescape, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prepend, escape]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
    }


def scores_of(definition: Mapping[str, Any], name: str) -> dict[str, float]:
    """Scores that stand for the merges of a tokenizer.json; a token that no merge makes gets a lower one.

    Raises TokenizerError when SentencePiece would merge in another way.
    """
    model = definition["model"]
    special = {token["content"] for token in definition["added_tokens"]}
    score_of = {t: 0.0 for t in model["vocab"] if t not in special and not sentencepiece.BYTE.fullmatch(t)}
    merges = [m.split(" ", 1) if isinstance(m, str) else m for m in model.get("merges", [])]
    pairs = [(head, tail) for head, tail in merges if head + tail in score_of]
    splits = {token: set(halves) for token in score_of if (halves := _splits(token, score_of))}
    if splits != _by_token(pairs):
        raise TokenizerError(
            f"{name} has other merges than SentencePiece would make of its vocabulary, and llama.cpp knows "
            "no others; export the model from a folder without tokenizer.json"
        )
    order = dict.fromkeys([*(head + tail for head, tail in pairs), *model["vocab"]])
    return {token: -float(place) for place, token in enumerate(order)}


def _by_token(merges: Sequence[Pair]) -> dict[str, set[Pair]]:
    """The pairs of each token; nothing if they do not stand together in the list."""
    pairs: dict[str, set[Pair]] = {}
    last = ""
    for head, tail in merges:
        token = head + tail
        if token != last and token in pairs:
            return {}
        pairs.setdefault(token, set()).add((head, tail))
        last = token
    return pairs


def _splits(token: str, vocab: Mapping[str, object]) -> list[Pair]:
    """The pairs of tokens that a token is made of."""
    pairs = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
    return [pair for pair in pairs if pair[0] in vocab and pair[1] in vocab]


def _ordered(splits: Mapping[str, list[Pair]], score_of: Mapping[str, float]) -> list[Pair]:
    """All pairs, those of the token with the highest score first, and the longer left half before others."""
    tokens = sorted(splits, key=lambda token: -score_of[token])
    return [pair for token in tokens for pair in reversed(splits[token])]
