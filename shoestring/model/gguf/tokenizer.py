"""Byte-level BPE tokenizer and chat template in GGUF metadata: writing and reading.

llama.cpp finds the pattern that splits text before BPE by a name. The name is chosen by splitting a text for
which all known patterns have different results. For tokenizers trained by this package it is "deepseek-v3",
the same pattern, except that ours ends every run of one kind at 128 characters; a longer run may become other
ids in llama.cpp (for the same text). The whole tokenizer.json is written too, under the key that GGUF has for
it, and an import reads it, so nothing is lost.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from shoestring.durable import write_atomic
from shoestring.errors import CheckpointError, TokenizerError
from shoestring.model.config import ModelConfig
from shoestring.model.gguf.file import GGUFFile
from shoestring.tokenizer import definition as definitions
from shoestring.tokenizer.bpe import CONFIG_FILE, TOKENIZER_FILE, Tokenizer
from shoestring.tokenizer.chat.deepseek import TEMPLATE_FILE
from shoestring.tokenizer.chat.load import MAX_TEMPLATE_BYTES

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Kinds of tokens in llama.cpp. Any text may contain a user-defined token, only templates a control token."""

ROLES = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "pad_token": "padding_token_id"}
END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""Ends of a text, of a turn, and of a message that calls tools; a completion ends at each of them."""

_GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_LETTERS = (  # letters with case, as DeepSeek's first tokenizers list them; escaped, since many look alike
    "A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf"
    "\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d"
    "\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4"
    "\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107"
    "\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17"
    "\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb"
    "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
SPLITS: dict[str, tuple[str, ...]] = {
    "deepseek-v3": (
        r"\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "deepseek-llm": (
        r"[\r\n]",
        rf"\s?[{_LETTERS}]+",
        r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
        r"\s+$",
        "[一-龥ࠀ-一가-퟿]+",
        r"\p{N}",
    ),
    "qwen2": (_GPT4 % "",),
    "llama-bpe": (_GPT4 % "{1,3}",),
    "smollm": (
        r"\p{N}",
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    ),
}
"""Patterns by llama.cpp's names: those of DeepSeek-V3, DeepSeek-V2, Qwen2, Llama 3 and SmolLM."""

ALIASES = {"deepseek-r1-qwen": "qwen2", "llama3": "llama-bpe", "llama-v3": "llama-bpe"}

PROBE = (
    "I'd say WE'LL go, isn't it?  1234567 3.14\n\n  def f(x):\n\treturn x_1+2 # ok!!\r\n"
    "我想在apple工作1314天。ありがとう naïve Ünï \u0e01\u0e33 e\u0301a \u2603\u2603 a\u00a0b   $5.00//x "
    "<a href=b>...)\n )\n\n   end 😀 ½② क्या"
)
"""Text that each of the patterns splits differently."""


def write_tokenizer(folder: Path | None, config: ModelConfig) -> dict[str, Any]:
    """Metadata of the tokenizer and chat template in `folder`, or the note that there is no tokenizer.

    Raises TokenizerError for a tokenizer that llama.cpp cannot use, or with more ids than the model.
    """
    metadata: dict[str, Any] = _ids(config)
    if folder is None or not (folder / TOKENIZER_FILE).is_file():
        return metadata | {"tokenizer.ggml.model": "none"}
    tokenizer = Tokenizer.load(folder)
    tokenizer.check_fits(config.vocab_size)
    definition = definitions.read_json(folder / TOKENIZER_FILE, TOKENIZER_FILE)
    settings = _settings(folder)
    tokens, types = _token_list(definition, config.vocab_size, tokenizer.name)
    metadata |= {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": split_name(definition, tokenizer.name),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": _merges(definition, tokenizer.name),
    }
    for role, key in ROLES.items():
        if role in tokenizer.roles and role != "eos_token":
            metadata[f"tokenizer.ggml.{key}"] = tokenizer.specials[tokenizer.roles[role]]
    if "eos_token" in tokenizer.roles:
        end_ids = dict.fromkeys((tokenizer.eos_id, *config.eos_token_ids))
        metadata |= {f"tokenizer.ggml.{key}": i for key, i in zip(END_KEYS, end_ids, strict=False)}
    metadata["tokenizer.ggml.add_bos_token"] = bool(tokenizer.begin_ids)
    metadata["tokenizer.ggml.add_eos_token"] = settings.get("add_eos_token") is True
    if template := _template(folder, settings):
        metadata["tokenizer.chat_template"] = template
    return metadata | {"tokenizer.huggingface.json": json.dumps(definition, ensure_ascii=False)}


def _ids(config: ModelConfig) -> dict[str, int]:
    """Special token ids of the model's configuration; GGUF has keys for three end tokens."""
    ids = {"bos_token_id": config.bos_token_id, "padding_token_id": config.pad_token_id}
    ids |= dict(zip(END_KEYS, config.eos_token_ids, strict=False))
    return {f"tokenizer.ggml.{key}": value for key, value in ids.items() if value is not None}


def split_name(definition: dict[str, Any], name: str) -> str:
    """Name of llama.cpp for the pattern of a tokenizer.json. Raises TokenizerError when it has none."""
    pieces = _split(definition.get("pre_tokenizer"), name)
    for split, patterns in SPLITS.items():
        if pieces == _split(_pre_tokenizer(patterns), split):
            return split
    raise TokenizerError(
        f"{name} splits text in a way that llama.cpp has no name for (it has {', '.join(SPLITS)}); "
        "export the model from a folder without tokenizer.json and pass token ids to llama.cpp"
    )


def _split(pre_tokenizer: Any, name: str) -> list[Any]:
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    tokenizer = definitions.compile_definition(
        {"version": "1.0", "added_tokens": [], "model": empty, "pre_tokenizer": pre_tokenizer}, name
    )
    return [] if tokenizer.pre_tokenizer is None else tokenizer.pre_tokenizer.pre_tokenize_str(PROBE)


def _pre_tokenizer(patterns: tuple[str, ...]) -> dict[str, Any]:
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns
    ]
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*splits, to_bytes]}


def _token_list(definition: dict[str, Any], size: int, name: str) -> tuple[list[str], list[int]]:
    """Spelling and type of each row of the embedding."""
    tokens, types = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    for spelling, token_id in definition["model"]["vocab"].items():
        tokens[token_id], types[token_id] = spelling, NORMAL
    for token in definition["added_tokens"]:
        spelling = token["content"]
        # DeepSeek's role tokens are not marked as special; llama.cpp would find them in text from users.
        is_control = token.get("special") or spelling.startswith(("<｜", "<|"))
        tokens[token["id"]], types[token["id"]] = spelling, CONTROL if is_control else USER_DEFINED
    if len(set(tokens)) != size:
        raise TokenizerError(f"{name} has two ids with the same spelling, which llama.cpp does not allow")
    return tokens, types


def _merges(definition: dict[str, Any], name: str) -> list[str]:
    """Merges as "left right"; newer tokenizer.json files have pairs."""
    merges = [m if isinstance(m, str) else " ".join(m) for m in definition["model"].get("merges", [])]
    if any(merge.count(" ") != 1 for merge in merges):
        raise TokenizerError(f"{name} merges tokens that contain spaces, which llama.cpp does not allow")
    return merges


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_FILE
    return definitions.read_json(file, CONFIG_FILE) if file.exists() else {}


def _template(folder: Path, settings: dict[str, Any]) -> str | None:
    file = folder / TEMPLATE_FILE
    if file.is_file() and file.stat().st_size <= MAX_TEMPLATE_BYTES:
        return file.read_text(encoding="utf-8", errors="replace")
    template = settings.get("chat_template")
    return template if isinstance(template, str) else None


def read_tokenizer(file: GGUFFile) -> Tokenizer | None:
    """Read the tokenizer of a GGUF file; None when there is none.

    A tokenizer.json in the file is used, and it must agree with the list of tokens. Raises CheckpointError or
    TokenizerError for another kind than byte-level BPE, and for damage.
    """
    kind = file.metadata.get("tokenizer.ggml.model")
    if kind in (None, "none", "no_vocab"):
        return None
    if kind != "gpt2":
        raise CheckpointError(
            f"{file.path} has a tokenizer of kind {str(kind)[:40]!r}; only 'gpt2' (BPE) is supported"
        )
    tokens = _list(file, "tokenizer.ggml.tokens")
    definition = _stored_definition(file, tokens) or _definition(file, tokens)
    spellings = {token["content"] for token in definition["added_tokens"]}
    roles = {}
    for role, key in ROLES.items():
        token_id = file.metadata.get(f"tokenizer.ggml.{key}")
        if type(token_id) is int and 0 <= token_id < len(tokens) and tokens[token_id] in spellings:
            roles[role] = tokens[token_id]
    adds_bos = file.metadata.get("tokenizer.ggml.add_bos_token")
    if not isinstance(adds_bos, bool):  # llama.cpp's default
        adds_bos = ALIASES.get(str(pre := file.metadata.get("tokenizer.ggml.pre")), pre) == "llama-bpe"
    return Tokenizer(definition, roles, adds_bos=adds_bos, name=f"the tokenizer in {file.path}")


def save_tokenizer(file: GGUFFile, tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat template into `folder`. Raises StorageError."""
    tokenizer.save(folder)
    settings = definitions.read_json(folder / CONFIG_FILE, CONFIG_FILE)
    if isinstance(value := file.metadata.get("tokenizer.ggml.add_eos_token"), bool):
        settings["add_eos_token"] = value
    write_atomic(folder / CONFIG_FILE, json.dumps(settings, ensure_ascii=False, indent=2) + "\n")
    template = file.metadata.get("tokenizer.chat_template")
    if isinstance(template, str) and len(template) <= MAX_TEMPLATE_BYTES:
        write_atomic(folder / TEMPLATE_FILE, template)


def _list(file: GGUFFile, key: str) -> list[str]:
    value = file.metadata.get(key)
    if not isinstance(value, list):
        raise CheckpointError(f"{file.path} has no list of texts at {key}; convert the model again")
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


def _definition(file: GGUFFile, tokens: list[str]) -> dict[str, Any]:
    """Make a tokenizer.json from tokens, types and merges."""
    pre = file.metadata.get("tokenizer.ggml.pre")
    name = ALIASES.get(str(pre), str(pre))
    if name not in SPLITS:
        names = ", ".join((*SPLITS, *ALIASES))
        raise CheckpointError(f"{file.path} splits text as {str(pre)[:40]!r}; supported are {names}")
    kinds = np.asarray(file.metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens)))
    if kinds.shape != (len(tokens),) or kinds.dtype.kind not in "iu":
        raise CheckpointError(
            f"{file.path} does not have one token_type for each of its {len(tokens)} tokens"
        )
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    pairs = zip(tokens, kinds.tolist(), strict=True)
    entries = [(i, token, kind) for i, (token, kind) in enumerate(pairs) if kind != UNUSED]
    if len({token for _, token, _ in entries}) != len(entries):
        raise CheckpointError(f"{file.path} has two tokens with the same spelling; convert the model again")
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": token, **plain, "special": kind == CONTROL}
            for i, token, kind in entries
            if kind in (CONTROL, USER_DEFINED)
        ],
        "normalizer": None,
        "pre_tokenizer": _pre_tokenizer(SPLITS[name]),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "ignore_merges": name == "llama-bpe",  # as in Llama 3's own tokenizer.json
            "vocab": {token: i for i, token, _ in entries},
            "merges": _list(file, "tokenizer.ggml.merges"),
        },
    }
