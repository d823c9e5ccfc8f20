"""BPE tokenizer over bytes: lossless, and text from users never becomes special tokens."""

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from shoestring.durable import write_atomic
from shoestring.errors import TokenizerError
from shoestring.tokenizer import definition as definitions
from shoestring.tokenizer import sentencepiece
from shoestring.tokenizer.special import BOS, EOS, PAD, any_of

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
ROLES = ("bos_token", "eos_token", "pad_token")


class Tokenizer:
    """Text to ids and back; `decode(encode(text)) == text` for every text without lone surrogates.

    Tokenizers with SentencePiece's vocabulary read `▁` as a space, so that they do not keep it, and those
    with a Metaspace pre-tokenizer drop one space at the beginning, as in transformers.

    The added tokens of tokenizer.json are of two kinds (`definition.is_special`). *Special tokens* never come
    from text, unless `allow_special=True`. The others, such as Qwen's `<tool_call>`, are ordinary text that
    has an id of its own. Two backend tokenizers share the vocabulary: only one finds special tokens in text.
    """

    def __init__(
        self,
        definition: dict[str, Any],
        roles: dict[str, str],
        *,
        adds_bos: bool | None = None,
        name: str = "the tokenizer",
    ) -> None:
        """Compile `definition`, the content of tokenizer.json.

        `roles` maps bos_token, ... to spellings. `adds_bos` says whether a text gets the begin token; None
        leaves that to the definition's post-processor.
        """
        definitions.check(definition, name)
        self._definition, self._adds_bos = definition, adds_bos
        self._full = definitions.compile_definition(definition, name)
        self.name = name
        self.added_tokens: dict[str, int] = {t["content"]: t["id"] for t in definition["added_tokens"]}
        """Id of each added token by its spelling, the special ones among them."""
        self.specials = definitions.special_tokens(definition, roles.values())
        """Id of each special token by its spelling."""
        self.hidden_ids = definitions.hidden_ids(definition, roles.values())
        """Ids that `skip_special` leaves out: tokens that the file marks as special, but thinking tags."""
        self._plain = definitions.compile_plain(definition, self.specials, name)
        self.prefix = sentencepiece.prefix(definition)
        """The texts that `encode` puts a space before; see tokenizer/sentencepiece.py."""
        self.drops_space = sentencepiece.drops_space(definition)
        """Whether `decode` leaves out a space at the beginning."""
        self.roles = {role: roles[role] for role in ROLES if role in roles}
        """Spellings of bos_token, eos_token and pad_token, as far as the tokenizer has them."""
        for role, spelling in self.roles.items():
            if spelling not in self.added_tokens:
                raise TokenizerError(
                    f"{name} has no special token {spelling!r}, although it is named as the {role}"
                )
        self._check_plain()
        self.vocab_size: int = 1 + max([*definition["model"]["vocab"].values(), *self.added_tokens.values()])
        """One more than the largest id: the number of rows that an embedding needs."""

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, *, min_frequency: int = 2) -> "Tokenizer":
        """Learn at most `vocab_size` ids, special tokens included; equal texts give equal tokenizers."""
        roles = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
        return cls(definitions.train(texts, vocab_size, min_frequency), roles, adds_bos=True)

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
        adds_bos: bool | None = None
        if config_file.exists():
            config = definitions.read_json(config_file, CONFIG_FILE)
            roles, setting = _roles(config, config_file), config.get("add_bos_token")
            adds_bos = setting if isinstance(setting, bool) else None
        else:
            spellings = {token["content"] for token in definition["added_tokens"]}
            deepseek = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
            roles = {role: spelling for role, spelling in deepseek.items() if spelling in spellings}
        if adds_bos is None and definitions.is_of_this_package(definition):
            adds_bos = True  # written before tokenizer_config.json said so
        return cls(definition, roles, adds_bos=adds_bos, name=str(file))

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, as `transformers.AutoTokenizer` reads them."""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,  # otherwise decoding changes spaces before punctuation
            "model_input_names": ["input_ids", "attention_mask"],
            **self.roles,
        }
        if self._adds_bos is not None:
            config["add_bos_token"] = self._adds_bos
        write_atomic(Path(folder) / TOKENIZER_FILE, json.dumps(self._definition, ensure_ascii=False))
        write_atomic(Path(folder) / CONFIG_FILE, json.dumps(config, ensure_ascii=False, indent=2) + "\n")

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of `text`; special tokens are ordinary text unless `allow_special`. No token is added."""
        return self.encode_batch([text], allow_special=allow_special)[0]

    def encode_batch(
        self, texts: Sequence[str], *, allow_special: bool = False, continues: bool = False
    ) -> list[list[int]]:
        """Encode every text as `encode` does, in parallel; with `continues`, plain texts that follow others.

        Raises TokenizerError for a lone surrogate.
        """
        backend = self._full if allow_special else self._continuing if continues else self._plain
        for text in texts:
            definitions.check_text(text)
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD, an id without a token becomes nothing."""
        skip = self.hidden_ids if skip_special else ()
        data = b"".join(self.token_bytes(i) for i in ids if i not in skip)
        return (data.removeprefix(b" ") if self.drops_space else data).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of one id (the spelling of a special token); empty for an id without a token."""
        return self._bytes.get(token_id, b"")

    def special_id(self, spelling: str) -> int:
        """Id of a special token. Raises TokenizerError when the tokenizer has no such token."""
        if spelling not in self.specials:
            raise TokenizerError(f"{self.name} has no special token {spelling!r}")
        return self.specials[spelling]

    @cached_property
    def special_pattern(self) -> re.Pattern[str]:
        """Pattern of the special tokens in a text, the longest first."""
        return re.compile(any_of(self.specials))

    @cached_property
    def begin_ids(self) -> tuple[int, ...]:
        """Ids that stand before every text: the begin token, or none.

        `add_bos_token` in tokenizer_config.json or GGUF decides; without it the post-processor does.
        """
        if self._adds_bos is not None:
            return (self.bos_id,) if self._adds_bos and "bos_token" in self.roles else ()
        plain, framed = (self._full.encode("a", add_special_tokens=framed).ids for framed in (False, True))
        places = (n for n in range(len(framed)) if framed[n : n + len(plain)] == plain)
        return tuple(framed[: next(places, 0)])

    @property
    def model_ids(self) -> dict[str, int | None]:
        """Ids of the begin, end and padding token by their names in config.json; None where there is none."""
        return {
            f"{role}_id": self.added_tokens[self.roles[role]] if role in self.roles else None
            for role in ROLES
        }

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

    def unused_ids(self, embedding_rows: int) -> list[int]:
        """The rows of an embedding that no token has: its padding, and gaps between the tokens' ids."""
        own_ids = {*self._definition["model"]["vocab"].values(), *self.added_tokens.values()}
        return [token_id for token_id in range(embedding_rows) if token_id not in own_ids]

    def _role_id(self, role: str) -> int:
        if role not in self.roles:
            raise TokenizerError(f"{self.name} has no {role}; name it in {CONFIG_FILE}")
        return self.added_tokens[self.roles[role]]

    def _check_plain(self) -> None:
        """Raise TokenizerError for merges that spell a special token: text from users could become one."""
        for spelling, ids in zip(self.specials, self.encode_batch(list(self.specials)), strict=True):
            if self.specials[spelling] in ids:
                raise TokenizerError(
                    f"{self.name} is unsafe: plain text becomes the special token {spelling!r}"
                )

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        return definitions.token_bytes(self._definition)

    @cached_property
    def _continuing(self) -> Any:
        """The backend for plain texts that follow others."""
        if self.prefix == "never":
            return self._plain
        definition = sentencepiece.without_prefix(self._definition)
        return definitions.compile_plain(definition, self.specials, self.name)


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
