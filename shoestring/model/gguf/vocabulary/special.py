"""Token ids with a role in GGUF metadata: begin, end, padding, unknown."""

from shoestring.model.gguf.file import GGUFFile

ROLES = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "pad_token": "padding_token_id"}
END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""Ends of a text, of a turn, and of a message that calls tools; a completion ends at each of them."""
_SENTENCEPIECE_IDS = {"unknown_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
"""Places of these tokens in a SentencePiece vocabulary, if the file does not say them."""


def role_id(file: GGUFFile, key: str, vocab_size: int) -> int | None:
    """The id at a key of `tokenizer.ggml`; some programs write -1 or too large a number for none."""
    default = _SENTENCEPIECE_IDS.get(key) if file.metadata.get("tokenizer.ggml.model") == "llama" else None
    value = file.metadata.get(f"tokenizer.ggml.{key}", default)
    return value if type(value) is int and 0 <= value < vocab_size else None


def end_ids(file: GGUFFile, vocab_size: int) -> list[int]:
    """The ids at which a completion ends."""
    ids = (role_id(file, key, vocab_size) for key in END_KEYS)
    return [token_id for token_id in ids if token_id is not None]
