"""Token ids that are written as numbers, for models without a tokenizer."""

import re

from shoestring.errors import ConfigError

_SEPARATORS = re.compile(r"[\s,\[\]]+")


def read_token_ids(text: str, vocab_size: int, where: str) -> list[int]:
    """The ids in a text such as `1 15043 3186` or `[1, 15043]`. Raises ConfigError for another text."""
    words = [word for word in _SEPARATORS.split(text) if word]
    wrong = [word for word in words if not (word.isascii() and word.isdigit() and len(word) < 10)]
    if wrong or not words:
        raise ConfigError(
            f"{where} must hold token ids such as '1 15043 3186', because this model has no tokenizer; "
            + (f"{wrong[0][:40]!r} is none" if wrong else "it is empty")
        )
    ids = [int(word) for word in words]
    if max(ids) >= vocab_size:
        raise ConfigError(
            f"{where}: token id {max(ids)} is not below {vocab_size}, the size of the vocabulary"
        )
    return ids
