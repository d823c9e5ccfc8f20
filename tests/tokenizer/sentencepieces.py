"""Small SentencePiece-like tokenizers for tests, trained with `tokenizers`, in three forms."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPACE = "▁"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
UNESCAPE = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]


def train(texts: Sequence[str], vocab_size: int = 700, form: str = "llama") -> dict[str, Any]:
    """A tokenizer.json. `form` is llama (as Llama 2's), metaspace (newer files) or bare (no space first)."""
    return json.loads(_train(tuple(texts), vocab_size, form))


@cache
def _train(texts: tuple[str, ...], vocab_size: int, form: str) -> str:
    backend: Any = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend(SPACE)] if form == "llama" else []), normalizers.Replace(" ", SPACE)]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(split=True)  # for training only: no token crosses words
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 259, special_tokens=[], show_progress=False, limit_alphabet=80
    )
    backend.train_from_iterator(texts, trainer)
    learned = json.loads(backend.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *learned["vocab"]]
    vocab = {token: place for place, token in enumerate(dict.fromkeys(tokens))}
    # As in the converted files of Llama: every way to make a token is a merge, in the order of the tokens.
    made = ["".join(m) if isinstance(m, list) else m.replace(" ", "") for m in learned["merges"]]
    halves = [(token[:n], token[n:]) for token in dict.fromkeys(made) for n in range(len(token) - 1, 0, -1)]
    model = models.BPE(
        vocab=vocab,
        merges=[pair for pair in halves if pair[0] in vocab and pair[1] in vocab],
        byte_fallback=True,
        fuse_unk=True,
        unk_token="<unk>",
    )
    backend = Tokenizer(model)
    strip = [decoders.Strip(" ", 1, 0)]
    if form == "metaspace":
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        backend.decoder = decoders.Sequence([*UNESCAPE, *strip])
    else:
        prepend = [normalizers.Prepend(SPACE)] if form == "llama" else []
        backend.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", SPACE)])
        backend.decoder = decoders.Sequence([*UNESCAPE, *(strip if form == "llama" else [])])
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in tokens[:3]])
    return backend.to_str()
