"""What tokenizer.json says: trained from texts, or read from a stranger's file and checked."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from shoestring.errors import ConfigError, TokenizerError
from shoestring.tokenizer.special import SPECIAL_TOKENS, THINK_TAGS

RUN = 128
"""Longest run of one kind of character in a chunk: no text, however hostile, makes a long chunk."""

# What a token may not cross, in DeepSeek-V3's manner: digits in groups of three; Chinese and Japanese
# apart from the rest; then words with the mark or space before them, marks with the line ends after
# them, line ends, spaces. The last branch takes what no class holds (controls, unassigned). Each
# repetition is bounded and no two in a row can match the same character without the bound, so the time
# is linear.
CHUNKS = (
    r"\p{N}{1,3}",
    rf"[一-龥぀-ゟ゠-ヿ]{{1,{RUN}}}",
    "|".join(
        (
            rf"[!-/:-@\[-`{{-~][A-Za-z]{{1,{RUN}}}",
            rf"[^\r\n\p{{L}}\p{{N}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]{{1,{RUN}}}",
            rf" ?[\p{{P}}\p{{S}}]{{1,{RUN}}}[\r\n]{{0,{RUN}}}",
            rf"\s{{0,{RUN}}}[\r\n]{{1,{RUN}}}",
            rf"\s{{1,{RUN}}}(?!\S)",
            rf"\s{{1,{RUN}}}",
            rf"[^\s\p{{L}}\p{{M}}\p{{N}}\p{{P}}\p{{S}}]{{1,{RUN}}}",
        )
    ),
)

MAX_FILE_BYTES = 256 << 20
MAX_ID = 1 << 24
MAX_SPECIAL_CHARS = 128
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)


def train(texts: Iterable[str], vocab_size: int, min_frequency: int) -> dict[str, Any]:
    """The definition of a byte-level BPE (Sennrich et al. 2016, over bytes) learned from `texts`.

    The same texts in the same order give the same definition. It holds at most `vocab_size` ids, fewer
    when the texts are too short to fill them. Raises ConfigError for a vocabulary too small for the
    bytes and special tokens.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab_size < SMALLEST_VOCABULARY:
        raise ConfigError(
            f"vocab_size is {vocab_size}; bytes and special tokens need {SMALLEST_VOCABULARY} or more"
        )
    splits: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in CHUNKS]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_checked(texts), trainer)
    definition: dict[str, Any] = json.loads(tokenizer.to_str())
    for token in definition["added_tokens"]:
        # As DeepSeek marks them: other engines' skip_special_tokens must leave the thinking tags for
        # their parsers.
        token["special"] = token["content"] not in THINK_TAGS
    return definition


def _checked(texts: Iterable[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        check_text(text, f"training text {number}")
        yield text


def check_text(text: str, name: str = "the text") -> None:
    """Raise TokenizerError when `text` has a lone surrogate, which no byte sequence can stand for."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"{name} has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}; "
            "read the text with errors='replace'"
        ) from None


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """The JSON object in `path`; TokenizerError names the file when it is missing, too big or damaged."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TokenizerError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, so it is no {kind}")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TokenizerError(f"no {kind} at {path}; name a folder that holds one") from None
    except OSError as error:
        raise TokenizerError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} is damaged, fetch or copy it again: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} is no {kind}: it holds a {type(value).__name__}, not an object")
    return value


def check(definition: dict[str, Any], name: str) -> None:
    """Raise TokenizerError unless `definition` is a byte-level BPE with sensible ids; `name` is the file."""
    model, added = definition.get("model"), definition.get("added_tokens")
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != "BPE":
        raise TokenizerError(f"{name} has a model of type {kind!r}; only byte-level BPE is supported")
    if "ByteLevel" not in json.dumps(definition.get("decoder")):
        raise TokenizerError(
            f"{name} is not byte-level (no ByteLevel decoder); only byte-level BPE is supported"
        )
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not isinstance(added, list):
        raise TokenizerError(f"{name} is damaged: model.vocab is no object or added_tokens is no list")
    ids = list(vocab.values())
    for token in added:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str) or not token["content"]:
            raise TokenizerError(f"{name} is damaged: an entry of added_tokens has no content")
        if len(token["content"]) > MAX_SPECIAL_CHARS:
            raise TokenizerError(f"{name} has a special token longer than {MAX_SPECIAL_CHARS} characters")
        ids.append(token.get("id"))
    if not ids or not all(type(i) is int and 0 <= i < MAX_ID for i in ids):
        raise TokenizerError(f"{name} has an id that is no whole number from 0 to {MAX_ID - 1}")


def compile_definition(definition: dict[str, Any], name: str) -> Any:
    """The `tokenizers.Tokenizer` of a checked definition; TokenizerError when the library refuses it."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(json.dumps(definition))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    except (KeyboardInterrupt, SystemExit):
        raise
    except (
        BaseException
    ) as error:  # a panic in Rust arrives as a BaseException; nothing else can come from here
        raise TokenizerError(f"{name} is no tokenizer that can be used: {str(error)[:200]}") from None
    return tokenizer


def without_added_tokens(definition: dict[str, Any]) -> dict[str, Any]:
    """The same byte-level BPE knowing no special token: what user text is encoded with."""
    return {**definition, "added_tokens": [], "post_processor": None}


def byte_of_char() -> dict[str, int]:
    """Byte-level BPE's alphabet: which byte each printable stand-in is (GPT-2, Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + n): b for n, b in enumerate(others)}
