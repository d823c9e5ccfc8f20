"""Tokenizers and chat templates in GGUF metadata, read and written as tokenizer.json and the files beside it.

Two kinds are read: byte-level BPE ("gpt2"), which names its way to split text, and SentencePiece ("llama").
A file may hold a whole tokenizer.json too, as an export writes it; then nothing is lost.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from shoestring.durable import write_atomic
from shoestring.errors import CheckpointError
from shoestring.model.gguf.file import GGUFFile
from shoestring.model.gguf.inert import is_inert_for_tokenizer
from shoestring.model.gguf.vocabulary import sentencepiece
from shoestring.model.gguf.vocabulary.special import END_KEYS, ROLES, role_id
from shoestring.model.gguf.vocabulary.splits import NAMES, find_split, pre_tokenizer
from shoestring.tokenizer import definition as definitions
from shoestring.tokenizer.bpe import CONFIG_FILE, Tokenizer
from shoestring.tokenizer.sentencepiece import SPACE

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Kinds of tokens in llama.cpp. Any text may contain a user-defined token, only templates a control token."""

WAY_OUT = "`shoestring import FILE FOLDER --weights-only` imports the model for token ids"
NO_TOKENIZER = (None, "none", "no_vocab")
_READ = frozenset(
    ("model", "pre", "tokens", "token_type", "merges", "add_bos_token", "add_eos_token", *END_KEYS)
)
_MARK = re.compile(r"_?<.+>|\[.+\]")
_KINDS = {"gpt2": "byte-level BPE", "llama": "SentencePiece"}


def read_tokenizer(file: GGUFFile) -> Tokenizer | None:
    """Read the tokenizer of a GGUF file; None when there is none.

    A tokenizer.json in the file is used, and it must agree with the list of tokens. Raises CheckpointError or
    TokenizerError for another kind, for a key that changes ids and is not supported, and for damage.
    """
    kind = file.metadata.get("tokenizer.ggml.model")
    if kind in NO_TOKENIZER:
        return None
    if kind not in _KINDS:
        kinds = " and ".join(f"{key!r} ({value})" for key, value in _KINDS.items())
        raise CheckpointError(
            f"{file.path} has a tokenizer of kind {str(kind)[:40]!r}; supported are {kinds}; {WAY_OUT}"
        )
    _check_keys(file, kind)
    tokens = _list(file, "tokenizer.ggml.tokens")
    definition = _stored_definition(file, tokens) or _definition(file, tokens, kind)
    spellings = {token["content"] for token in definition["added_tokens"]}
    ids = {role: role_id(file, key, len(tokens)) for role, key in ROLES.items()}
    roles = {role: tokens[i] for role, i in ids.items() if i is not None and tokens[i] in spellings}
    adds_bos = file.metadata.get("tokenizer.ggml.add_bos_token")
    if not isinstance(adds_bos, bool):  # llama.cpp's default
        split = find_split(file.metadata.get("tokenizer.ggml.pre"))
        adds_bos = kind == "llama" or (split is not None and split.adds_bos)
    return Tokenizer(definition, roles, adds_bos=adds_bos, name=f"the tokenizer in {file.path}")


def save_tokenizer(file: GGUFFile, tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json into `folder`. Raises StorageError."""
    tokenizer.save(folder)
    settings = definitions.read_json(folder / CONFIG_FILE, CONFIG_FILE)
    if isinstance(value := file.metadata.get("tokenizer.ggml.add_eos_token"), bool):
        settings["add_eos_token"] = value
    write_atomic(folder / CONFIG_FILE, json.dumps(settings, ensure_ascii=False, indent=2) + "\n")


def describe(file: GGUFFile) -> str:
    """The kind of a file's tokenizer, in words. Raises as `read_tokenizer` does."""
    if read_tokenizer(file) is None:
        return "none"
    kind = str(file.metadata["tokenizer.ggml.model"])
    pre = file.metadata.get("tokenizer.ggml.pre", "default")
    return _KINDS[kind] + (f", {pre}" if kind == "gpt2" else "")


def _check_keys(file: GGUFFile, kind: str) -> None:
    """Raise CheckpointError for the first key that may change ids and is not read."""
    read = _READ | ({"scores", "add_space_prefix"} if kind == "llama" else set())
    for key, value in file.metadata.items():
        name = key.removeprefix("tokenizer.ggml.")
        if name != key and name not in read and not is_inert_for_tokenizer(name, value):
            raise CheckpointError(
                f"{file.path}: {key[:100]} = {str(value)[:40]} is not supported: false, 0 or nothing "
                f"would do; {WAY_OUT}"
            )


def _list(file: GGUFFile, key: str) -> list[str]:
    value = file.metadata.get(key)
    if not isinstance(value, list):
        raise CheckpointError(
            f"{file.path} has no list of texts at {key}; convert the model again, or {WAY_OUT}"
        )
    return value


def _stored_definition(file: GGUFFile, tokens: list[str]) -> dict[str, Any] | None:
    text = file.metadata.get("tokenizer.huggingface.json")
    if not isinstance(text, str):
        return None
    try:
        definition = json.loads(text)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file.path} has a tokenizer.huggingface.json that is not JSON") from None
    if not isinstance(definition, dict):
        raise CheckpointError(f"{file.path} has a tokenizer.huggingface.json that is not an object")
    definitions.check(definition, f"the tokenizer in {file.path}")
    entries = list(definition["model"]["vocab"].items())
    entries += [(token["content"], token["id"]) for token in definition["added_tokens"]]
    if any(token_id >= len(tokens) or tokens[token_id] != spelling for spelling, token_id in entries):
        raise CheckpointError(f"{file.path} has a tokenizer.huggingface.json with other tokens than its list")
    return definition


def _definition(file: GGUFFile, tokens: list[str], kind: str) -> dict[str, Any]:
    """Make a tokenizer.json from tokens, types, and merges or scores."""
    kinds = _token_kinds(file, tokens)
    if kind == "llama":  # spaces in a user-defined token are ▁, which no text has: it is merged like others
        kinds = [
            NORMAL if k == USER_DEFINED and SPACE in t else k for t, k in zip(tokens, kinds, strict=True)
        ]
    entries = [(i, t, k) for i, (t, k) in enumerate(zip(tokens, kinds, strict=True)) if k != UNUSED and t]
    vocab = {token: i for i, token, _ in entries}
    if len(vocab) != len(entries):
        raise CheckpointError(
            f"{file.path} has two tokens with the same spelling; convert the model again, or {WAY_OUT}"
        )
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    special = [
        {"id": i, "content": token, **plain, "special": k != USER_DEFINED}
        for i, token, k in entries
        if k in (CONTROL, USER_DEFINED, UNKNOWN)
    ]
    if kind == "llama":
        prefix = file.metadata.get("tokenizer.ggml.add_space_prefix", True) is not False
        mergeable = [token for _, token, k in entries if k == NORMAL]
        model = sentencepiece.read_model(file, vocab, mergeable)
        fallback = role_id(file, "unknown_token_id", len(tokens))
        parts = sentencepiece.steps(prefix)
        model["unk_token"] = tokens[fallback] if fallback is not None and tokens[fallback] in vocab else None
    else:
        parts, model = _byte_level(file)
        model["vocab"] = _without_last(vocab, special) if model["ignore_merges"] else vocab
    return {"version": "1.0", "added_tokens": special, "post_processor": None, **parts, "model": model}


def _without_last(vocab: dict[str, int], special: list[dict[str, Any]]) -> dict[str, int]:
    """The vocabulary without the added tokens after all others, so that no whole word of a text is one.

    They get the ids after the vocabulary in their order, which are theirs if none is missing between them.
    """
    names = {token["content"] for token in special}
    last = max((i for token, i in vocab.items() if token not in names), default=-1)
    after = [i for i in vocab.values() if i > last]
    is_whole = after == list(range(last + 1, last + 1 + len(after)))
    return {token: i for token, i in vocab.items() if i <= last} if is_whole else vocab


def _byte_level(file: GGUFFile) -> tuple[dict[str, Any], dict[str, Any]]:
    """The steps of a byte-level BPE around its model, and the model without its vocabulary."""
    pre = file.metadata.get("tokenizer.ggml.pre")
    split = find_split(pre)
    if split is None:
        raise CheckpointError(
            f"{file.path} splits text as {str(pre)[:40]!r}, which is none of the {len(NAMES)} supported "
            f"ways; {WAY_OUT}"
        )
    parts = {
        "normalizer": {"type": "NFC"} if split.nfc else None,
        "pre_tokenizer": pre_tokenizer(split.patterns),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    }
    merges = _list(file, "tokenizer.ggml.merges")
    return parts, {"type": "BPE", "ignore_merges": split.whole_words, "merges": merges}


def _token_kinds(file: GGUFFile, tokens: list[str]) -> list[int]:
    """The kind of each token; marks such as <s> that end texts or turns are control tokens in any case."""
    kinds = np.asarray(file.metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens)))
    if kinds.shape != (len(tokens),) or kinds.dtype.kind not in "iu":
        raise CheckpointError(
            f"{file.path} does not have one token_type for each of its {len(tokens)} tokens"
        )
    result: list[int] = kinds.tolist()
    for key in ("bos_token_id", *END_KEYS):
        token_id = role_id(file, key, len(tokens))
        if token_id is not None and _MARK.fullmatch(tokens[token_id]) and result[token_id] != UNUSED:
            result[token_id] = CONTROL
    return result
