"""Content of tokenizer.json: trained from texts, or read from a file and checked."""

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from shoestring.errors import ConfigError, TokenizerError
from shoestring.tokenizer import sentencepiece
from shoestring.tokenizer.special import MARKS, SPECIAL_TOKENS, THINK_TAGS

RUN = 128
"""Longest run of one kind of character in a chunk, so that no text makes a chunk that is slow to merge."""

# Borders that no token crosses, as in DeepSeek-V3: digits in groups of three; Chinese and Japanese apart
# from the rest; then words with the mark or space before them, marks with the line ends after them, line
# ends, spaces. The last branch matches all other characters (controls, unassigned). Each repetition has a
# bound, and two in a row never match the same character, so the time is linear.
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
    """Train a byte-level BPE (Sennrich et al. 2016, over bytes) on `texts`; returns its definition.

    The same texts in the same order give the same definition. It has at most `vocab_size` ids, fewer if
    the texts are too short. Raises ConfigError for a vocabulary too small for the bytes and special tokens.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab_size < SMALLEST_VOCABULARY:
        raise ConfigError(
            f"vocab_size is {vocab_size}, and bytes and special tokens need {SMALLEST_VOCABULARY} or more"
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
    tokenizer.train_from_iterator(_check_each(texts), trainer)
    definition: dict[str, Any] = json.loads(tokenizer.to_str())
    for token in definition["added_tokens"]:
        # As DeepSeek does: with skip_special_tokens other engines keep the thinking tags for their parsers.
        token["special"] = token["content"] not in THINK_TAGS
    return definition


def _check_each(texts: Iterable[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        check_text(text, f"training text {number}")
        yield text


def check_text(text: str, name: str = "the text") -> None:
    """Raise TokenizerError when `text` has a lone surrogate, which has no UTF-8 bytes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"{name} has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}; "
            "read the text with errors='replace'"
        ) from None


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """Read the JSON object in `path`. Raises TokenizerError when it is missing, too large or damaged."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TokenizerError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, so it is not a {kind}")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TokenizerError(f"there is no {kind} at {path}; name a folder that has one") from None
    except OSError as error:
        raise TokenizerError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} is damaged, download or copy it again: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} is not a {kind}: it holds a {type(value).__name__}, not an object")
    return value


def check(definition: dict[str, Any], name: str) -> None:
    """Raise TokenizerError unless `definition` is a BPE that holds every text; `name` is the file."""
    model, added_tokens = definition.get("model"), definition.get("added_tokens")
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != "BPE":
        raise TokenizerError(f"{name} has a model of type {kind!r}; only BPE is supported")
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not isinstance(added_tokens, list):
        raise TokenizerError(f"{name} is damaged: model.vocab is not an object or added_tokens is not a list")
    if sentencepiece.is_sentencepiece(definition):
        sentencepiece.check(definition, name)
    elif "ByteLevel" not in json.dumps(definition.get("decoder")):
        raise TokenizerError(
            f"{name} is not byte-level (no ByteLevel decoder) and not of SentencePiece's kind"
        )
    ids = list(vocab.values())
    for token in added_tokens:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str) or not token["content"]:
            raise TokenizerError(f"{name} is damaged: an entry of added_tokens has no content")
        if len(token["content"]) > MAX_SPECIAL_CHARS:
            raise TokenizerError(f"{name} has a special token longer than {MAX_SPECIAL_CHARS} characters")
        ids.append(token.get("id"))
    if not ids or not all(type(i) is int and 0 <= i < MAX_ID for i in ids):
        raise TokenizerError(f"{name} has an id that is not a whole number from 0 to {MAX_ID - 1}")


def compile_definition(definition: dict[str, Any], name: str) -> Any:
    """Compile a checked definition as `tokenizers.Tokenizer`. Raises TokenizerError when that fails."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(json.dumps(definition))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in Rust is a BaseException; no other error is raised here
        raise TokenizerError(f"{name} cannot be used as a tokenizer: {str(error)[:200]}") from None
    return tokenizer


def compile_plain(definition: dict[str, Any], specials: Collection[str], name: str) -> Any:
    """Compile the same tokenizer without the tokens in `specials`; text from users is encoded with it."""
    added_tokens = [{**t, "special": t["content"] in specials} for t in definition["added_tokens"]]
    tokenizer = compile_definition({**definition, "added_tokens": added_tokens, "post_processor": None}, name)
    tokenizer.encode_special_tokens = True  # as the characters that they are spelled with
    return tokenizer


def special_tokens(definition: dict[str, Any], role_spellings: Collection[str]) -> dict[str, int]:
    """Ids by spelling of the added tokens that never come from text: special ones, and those with a role."""
    return {
        token["content"]: token["id"]
        for token in definition["added_tokens"]
        if is_special(token) or token["content"] in role_spellings
    }


def is_special(token: dict[str, Any]) -> bool:
    """Return whether text never becomes this added token, whatever the file says of marks and thinking tags.

    DeepSeek's role tokens, Qwen's marks for fill-in-the-middle and all thinking tags are not marked as
    special; a text that contained them could forge a turn or end the thinking.
    """
    spelling = token["content"]
    return token.get("special") is True or spelling.startswith(MARKS) or spelling in THINK_TAGS


def hidden_ids(definition: dict[str, Any], role_spellings: Collection[str]) -> frozenset[int]:
    """Ids of the tokens that the file marks as special, and of those with a role, without thinking tags."""
    return frozenset(
        token["id"]
        for token in definition["added_tokens"]
        if token.get("special") is True or token["content"] in role_spellings
        if token["content"] not in THINK_TAGS
    )


def is_of_this_package(definition: dict[str, Any]) -> bool:
    """Return whether `train` made it: its first tokens are all special tokens, in their order."""
    first = [(token["id"], token["content"]) for token in definition["added_tokens"][: len(SPECIAL_TOKENS)]]
    return first == list(enumerate(SPECIAL_TOKENS))


def token_bytes(definition: dict[str, Any]) -> dict[int, bytes]:
    """Bytes of each token by its id: the text of an added token is its spelling."""
    vocab = definition["model"]["vocab"].items()
    if sentencepiece.is_sentencepiece(definition):
        table = {token_id: sentencepiece.token_bytes(text) for text, token_id in vocab}
    else:
        byte_of = byte_of_char()
        table = {}
        for text, token_id in vocab:
            is_bytes = all(char in byte_of for char in text)
            table[token_id] = bytes(byte_of[char] for char in text) if is_bytes else text.encode()
    return table | {token["id"]: token["content"].encode() for token in definition["added_tokens"]}


def byte_of_char() -> dict[str, int]:
    """Alphabet of byte-level BPE: the byte of each printable character (GPT-2, Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + n): b for n, b in enumerate(others)}
