"""Train, encode, decode: lossless byte-level BPE that keeps special tokens out of user text."""

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

    A *special token* here is every added token of tokenizer.json. Two compiled twins share one
    vocabulary: one knows the special tokens, the other does not, and text is given to the other unless
    `allow_special=True`.
    """

    def __init__(
        self, definition: dict[str, Any], roles: dict[str, str], *, name: str = "the tokenizer"
    ) -> None:
        """`definition` is the content of tokenizer.json, `roles` maps bos_token... to spellings."""
        definitions.check(definition, name)
        self._definition = definition
        self._full = definitions.compile_definition(definition, name)
        self._plain = definitions.compile_definition(definitions.without_added_tokens(definition), name)
        self.name = name
        self.specials: dict[str, int] = {t["content"]: t["id"] for t in definition["added_tokens"]}
        """Each special token's spelling and id."""
        self.roles = {role: roles[role] for role in ROLES if role in roles}
        """bos_token, eos_token, pad_token: their spellings, as far as the tokenizer has them."""
        for role, spelling in self.roles.items():
            if spelling not in self.specials:
                raise TokenizerError(
                    f"{name} has no special token {spelling!r}, which is named as its {role}"
                )
        self._check_plain()
        self.vocab_size: int = 1 + max([*definition["model"]["vocab"].values(), *self.specials.values()])
        """One more than the largest id: the rows an embedding must have."""

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, *, min_frequency: int = 2) -> "Tokenizer":
        """Learn at most `vocab_size` ids, special tokens included; equal texts give equal tokenizers."""
        roles = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
        return cls(definitions.train(texts, vocab_size, min_frequency), roles)

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read tokenizer.json (a file, or its folder) and the tokenizer_config.json beside it, if any.

        Without that config, DeepSeek's own spellings are the begin, end and pad tokens if the tokenizer
        has them. Raises TokenizerError naming the file that is missing, damaged or of another kind.
        """
        path = Path(path)
        file = path / TOKENIZER_FILE if path.is_dir() else path
        definition = definitions.read_json(file, "tokenizer.json")
        definitions.check(definition, str(file))
        config_file = file.with_name(CONFIG_FILE)
        if config_file.exists():
            roles = _roles(definitions.read_json(config_file, CONFIG_FILE), config_file)
        else:
            known = {token["content"] for token in definition["added_tokens"]}
            deepseek = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
            roles = {role: spelling for role, spelling in deepseek.items() if spelling in known}
        return cls(definition, roles, name=str(file))

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, as `transformers.AutoTokenizer` reads them."""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,  # or decoding would change spaces before punctuation
            "model_input_names": ["input_ids", "attention_mask"],
            **self.roles,
        }
        write_atomic(Path(folder) / TOKENIZER_FILE, json.dumps(self._definition, ensure_ascii=False))
        write_atomic(Path(folder) / CONFIG_FILE, json.dumps(config, ensure_ascii=False, indent=2) + "\n")

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of `text`; special tokens are ordinary text unless `allow_special`. Nothing is added."""
        return self.encode_batch([text], allow_special=allow_special)[0]

    def encode_batch(self, texts: Sequence[str], *, allow_special: bool = False) -> list[list[int]]:
        """`encode` of every text, in parallel threads. Raises TokenizerError for a lone surrogate."""
        twin = self._full if allow_special else self._plain
        for text in texts:
            definitions.check_text(text)
        return [coded.ids for coded in twin.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD, ids without a token nothing."""
        hidden = set(self.specials.values()) if skip_special else set()
        return b"".join(self.token_bytes(i) for i in ids if i not in hidden).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one id stands for (a special token's spelling); empty for an id without a token."""
        return self._bytes.get(token_id, b"")

    def special_id(self, spelling: str) -> int:
        """The id of a special token; raises TokenizerError when this tokenizer has no such token."""
        if spelling not in self.specials:
            raise TokenizerError(f"{self.name} has no special token {spelling!r}")
        return self.specials[spelling]

    @property
    def bos_id(self) -> int:
        """Begin of sentence; TokenizerError when there is none."""
        return self._role_id("bos_token")

    @property
    def eos_id(self) -> int:
        """End of sentence; TokenizerError when there is none."""
        return self._role_id("eos_token")

    @property
    def pad_id(self) -> int:
        """Padding; TokenizerError when there is none."""
        return self._role_id("pad_token")

    def check_fits(self, embedding_rows: int) -> None:
        """Raise TokenizerError when an embedding of so many rows has no row for some id."""
        if self.vocab_size > embedding_rows:
            raise TokenizerError(
                f"{self.name} has {self.vocab_size} ids but the embedding has only {embedding_rows} rows; "
                "use the tokenizer saved with the model, or a model whose vocab_size is large enough"
            )

    def _role_id(self, role: str) -> int:
        if role not in self.roles:
            raise TokenizerError(f"{self.name} has no {role}; name it in {CONFIG_FILE}")
        return self.specials[self.roles[role]]

    def _check_plain(self) -> None:
        """A vocabulary whose merges spell a special token would let user text make one: refuse it."""
        for spelling, ids in zip(self.specials, self.encode_batch(list(self.specials)), strict=True):
            if self.specials[spelling] in ids:
                raise TokenizerError(
                    f"{self.name} makes the special token {spelling!r} from plain text; it is unsafe"
                )

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        byte_of = definitions.byte_of_char()
        table = {}
        for text, token_id in self._definition["model"]["vocab"].items():
            known = all(char in byte_of for char in text)
            table[token_id] = bytes(byte_of[char] for char in text) if known else text.encode()
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
