"""SentencePiece's vocabularies in tokenizer.json: spaces are `▁`, and unknown characters are bytes.

Llama 1 and 2, TinyLlama and Mistral have them. The tokenizer writes a `▁` before a text that begins, and
decoding leaves its space out again.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal

from shoestring.errors import TokenizerError

SPACE = "▁"
BYTE = re.compile("<0x([0-9A-F]{2})>")

Prefix = Literal["never", "first", "always"]
"""Texts that get a space first: none, the first of a conversation, or each text after a special token too."""


def is_sentencepiece(definition: dict[str, Any]) -> bool:
    """Return whether a tokenizer.json decodes `▁` as a space."""
    return any(
        step.get("type") == "Metaspace" or (step.get("type") == "Replace" and _replaces_space(step))
        for step in _steps(definition, "decoder")
    )


def check(definition: dict[str, Any], name: str) -> None:
    """Raise TokenizerError unless every text can be spelled, in bytes if need be."""
    model = definition["model"]
    absent = [byte for byte in range(256) if f"<0x{byte:02X}>" not in model.get("vocab", {})]
    if not model.get("byte_fallback") or absent:
        raise TokenizerError(
            f"{name} has no tokens for single bytes (byte_fallback), so it cannot hold every text; "
            "only SentencePiece vocabularies that have them are supported"
        )


def token_bytes(spelling: str) -> bytes:
    """Bytes of a token of the vocabulary."""
    byte = BYTE.fullmatch(spelling)
    return bytes([int(byte[1], 16)]) if byte else spelling.replace(SPACE, " ").encode()


def prefix(definition: dict[str, Any]) -> Prefix:
    """The texts that get a space first."""
    if any(step.get("type") == "Prepend" for step in _steps(definition, "normalizer")):
        return "always"
    schemes = [
        step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
        for step in _steps(definition, "pre_tokenizer")
        if step.get("type") == "Metaspace"
    ]
    return schemes[0] if schemes else "never"


def drops_space(definition: dict[str, Any]) -> bool:
    """Return whether decoding leaves out the space at the beginning."""
    return any(
        (step.get("type") == "Strip" and step.get("content") == " " and step.get("start", 0) > 0)
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in _steps(definition, "decoder")
    )


def without_prefix(definition: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer for texts that go on: no space is put before them."""
    return {
        **definition,
        "normalizer": _without_prefix(definition.get("normalizer")),
        "pre_tokenizer": _without_prefix(definition.get("pre_tokenizer")),
    }


def _without_prefix(step: Any) -> Any:
    if not isinstance(step, dict):
        return step
    if step.get("type") == "Prepend":
        return None
    if step.get("type") == "Metaspace":
        return {**step, "prepend_scheme": "never", "add_prefix_space": False}
    for key in ("normalizers", "pretokenizers"):
        if key in step:
            return {**step, key: [new for part in step[key] if (new := _without_prefix(part)) is not None]}
    return step


def _steps(definition: dict[str, Any], part: str) -> Iterator[dict[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or decoder, which may be a sequence of them."""
    step = definition.get(part)
    if isinstance(step, dict):
        steps = next(
            (step[key] for key in ("normalizers", "pretokenizers", "decoders") if key in step), [step]
        )
        yield from (step for step in steps if isinstance(step, dict))


def _replaces_space(step: dict[str, Any]) -> bool:
    pattern = step.get("pattern")
    return isinstance(pattern, dict) and pattern.get("String") == SPACE and step.get("content") == " "
