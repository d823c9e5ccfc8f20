"""Byte-level BPE tokenizer: lossless, and text from users never becomes special tokens."""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from shoestring.durable import write_atomic
from shoestring.errors import TokenizerError
from shoestring.tokenizer import definition as definitions
from shoestring.tokenizer.special import BOS, EOS, PAD

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
ROLES = ("bos_token", "eos_token", "pad_token")


class Tokenizer:
    """Text to ids and back; `decode(encode(text)) == text` for every text without lone surrogates.

    *Special tokens* are all added tokens of tokenizer.json. Two backend tokenizers share one vocabulary:
    one knows the special tokens and one does not, and text is encoded with the latter unless
    `allow_special=True`.
    """

    def __init__(
        self, definition: dict[str, Any], roles: dict[str, str], *, name: str = "the tokenizer"
    ) -> None:
        """Compile `definition`, the content of tokenizer.json; `roles` maps bos_token, ... to spellings."""
        definitions.check(definition, name)
        self._definition = definition
        self._full = definitions.compile_definition(definition, name)
        self._plain = definitions.compile_definition(definitions.without_added_tokens(definition), name)
        self.name = name
        self.specials: dict[str, int] = {t["content"]: t["id"] for t in definition["added_tokens"]}
        """Id of each special token by its spelling."""
        self.roles = {role: roles[role] for role in ROLES if role in roles}
        """Spellings of bos_token, eos_token and pad_token, as far as the tokenizer has them."""
        for role, spelling in self.roles.items():
            if spelling not in self.specials:
                raise TokenizerError(
                    f"{name} has no special token {spelling!r}, although it is named as the {role}"
                )
        self._check_plain()
        self.vocab_size: int = 1 + max([*definition["model"]["vocab"].values(), *self.specials.values()])
        """One more than the largest id: the number of rows that an embedding needs."""

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, *, min_frequency: int = 2) -> "Tokenizer":
        """Learn at most `vocab_size` ids, special tokens included; equal texts give equal tokenizers."""
        roles = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
        return cls(definitions.train(texts, vocab_size, min_frequency), roles)

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read tokenizer.json (the file or its folder) and tokenizer_config.json beside it, if it exists.

        Without that config, DeepSeek's spellings are the begin, end and pad tokens if the tokenizer has
        them. Raises TokenizerError naming the file that is missing, damaged or of another kind.
        """
        path = Path(path)
        file = path / TOKENIZER_FILE if path.is_dir() else path
        definition = definitions.read_json(file, "tokenizer.json")
        definitions.check(definition, str(file))
        config_file = file.with_name(CONFIG_FILE)
        if config_file.exists():
            roles = _roles(definitions.read_json(config_file, CONFIG_FILE), config_file)
        else:
            spellings = {token["content"] for token in definition["added_tokens"]}
            deepseek = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
            roles = {role: spelling for role, spelling in deepseek.items() if spelling in spellings}
        return cls(definition, roles, name=str(file))

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, as `transformers.AutoTokenizer` reads them."""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,  # otherwise decoding changes spaces before punctuation
            "model_input_names": ["input_ids", "attention_mask"],
            **self.roles,
        }
        write_atomic(Path(folder) / TOKENIZER_FILE, json.dumps(self._definition, ensure_ascii=False))
        write_atomic(Path(folder) / CONFIG_FILE, json.dumps(config, ensure_ascii=False, indent=2) + "\n")

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of `text`; special tokens are ordinary text unless `allow_special`. No token is added."""
        return self.encode_batch([text], allow_special=allow_special)[0]

    def encode_batch(self, texts: Sequence[str], *, allow_special: bool = False) -> list[list[int]]:
        """Encode every text as `encode` does, in parallel. Raises TokenizerError for a lone surrogate."""
        backend = self._full if allow_special else self._plain
        for text in texts:
            definitions.check_text(text)
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD, an id without a token becomes nothing."""
        skip = set(self.specials.values()) if skip_special else set()
        return b"".join(self.token_bytes(i) for i in ids if i not in skip).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of one id (the spelling of a special token); empty for an id without a token."""
        return self._bytes.get(token_id, b"")

    def special_id(self, spelling: str) -> int:
        """Id of a special token. Raises TokenizerError when the tokenizer has no such token."""
        if spelling not in self.specials:
            raise TokenizerError(f"{self.name} has no special token {spelling!r}")
        return self.specials[spelling]

    @property
    def bos_id(self) -> int:
        """Id of the begin token. Raises TokenizerError when there is none."""
        return self._role_id("bos_token")

    @property
    def eos_id(self) -> int:
        """Id of the end token. Raises TokenizerError when there is none."""
        return self._role_id("eos_token")

    @property
    def pad_id(self) -> int:
        """Id of the padding token. Raises TokenizerError when there is none."""
        return self._role_id("pad_token")

    def check_fits(self, embedding_rows: int) -> None:
        """Raise TokenizerError when an embedding of `embedding_rows` rows has no row for some id."""
        if self.vocab_size > embedding_rows:
            raise TokenizerError(
                f"{self.name} has {self.vocab_size} ids but the embedding has only {embedding_rows} rows; "
                "use the tokenizer that was saved with the model, or a model with a larger vocab_size"
            )

    def _role_id(self, role: str) -> int:
        if role not in self.roles:
            raise TokenizerError(f"{self.name} has no {role}; name it in {CONFIG_FILE}")
        return self.specials[self.roles[role]]

    def _check_plain(self) -> None:
        """Raise TokenizerError for merges that spell a special token: text from users could become one."""
        for spelling, ids in zip(self.specials, self.encode_batch(list(self.specials)), strict=True):
            if self.specials[spelling] in ids:
                raise TokenizerError(
                    f"{self.name} is unsafe: plain text becomes the special token {spelling!r}"
                )

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        byte_of = definitions.byte_of_char()
        table = {}
        for text, token_id in self._definition["model"]["vocab"].items():
            is_bytes = all(char in byte_of for char in text)
            table[token_id] = bytes(byte_of[char] for char in text) if is_bytes else text.encode()
        return table | {token_id: spelling.encode() for spelling, token_id in self.specials.items()}


def _roles(config: dict[str, Any], path: Path) -> dict[str, str]:
    """Spellings in tokenizer_config.json, where an entry is a string or a serialized AddedToken."""
    roles = {}
    for role in ROLES:
        entry = config.get(role)
        spelling = entry.get("content") if isinstance(entry, dict) else entry
        if spelling is not None and not isinstance(spelling, str):
            raise TokenizerError(f"{path} has a {role} that is neither text nor an added token")
        if spelling:
            roles[role] = spelling
    return roles
