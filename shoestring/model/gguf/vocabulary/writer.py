"""The tokenizer and chat templates of a folder as GGUF metadata."""

import json
import logging
from pathlib import Path
from typing import Any

from shoestring.errors import TokenizerError
from shoestring.model.config import ModelConfig
from shoestring.model.gguf.tokenizer import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from shoestring.model.gguf.vocabulary import sentencepiece
from shoestring.model.gguf.vocabulary.special import END_KEYS, ROLES
from shoestring.model.gguf.vocabulary.splits import PROBE, split_name
from shoestring.model.gguf.vocabulary.templates import write_templates
from shoestring.tokenizer import definition as definitions
from shoestring.tokenizer import sentencepiece as vocabulary
from shoestring.tokenizer.bpe import CONFIG_FILE, TOKENIZER_FILE, Tokenizer

log = logging.getLogger(__name__)


def write_tokenizer(folder: Path | None, config: ModelConfig) -> dict[str, Any]:
    """Metadata of the tokenizer and chat templates in `folder`, or the note that there is no tokenizer.

    Raises TokenizerError for a tokenizer that llama.cpp cannot use, or with more ids than the model.
    """
    metadata: dict[str, Any] = _ids(config)
    if folder is None or not (folder / TOKENIZER_FILE).is_file():
        return metadata | {"tokenizer.ggml.model": "none"}
    tokenizer = Tokenizer.load(folder)
    tokenizer.check_fits(config.vocab_size)
    if tokenizer.begin_ids not in ((), (tokenizer.model_ids["bos_token_id"],)):
        raise TokenizerError(
            f"{tokenizer.name} begins texts with other tokens than its bos_token, which llama.cpp cannot do; "
            "export the model from a folder without tokenizer.json and pass token ids to llama.cpp"
        )
    definition = definitions.read_json(folder / TOKENIZER_FILE, TOKENIZER_FILE)
    file = folder / CONFIG_FILE
    settings = definitions.read_json(file, CONFIG_FILE) if file.exists() else {}
    tokens, types = _token_list(definition, config.vocab_size, tokenizer.name)
    metadata |= {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    if vocabulary.is_sentencepiece(definition):
        metadata |= _sentencepiece(definition, tokens, tokenizer.name)
    else:
        metadata |= _byte_level(definition, tokenizer.name)
    for role, key in ROLES.items():
        if role in tokenizer.roles and role != "eos_token":
            metadata[f"tokenizer.ggml.{key}"] = tokenizer.specials[tokenizer.roles[role]]
    if "eos_token" in tokenizer.roles:
        end_ids = dict.fromkeys((tokenizer.eos_id, *config.eos_token_ids))
        metadata |= {f"tokenizer.ggml.{key}": i for key, i in zip(END_KEYS, end_ids, strict=False)}
    metadata["tokenizer.ggml.add_bos_token"] = bool(tokenizer.begin_ids)
    metadata["tokenizer.ggml.add_eos_token"] = settings.get("add_eos_token") is True
    metadata |= write_templates(folder, settings)
    return metadata | {"tokenizer.huggingface.json": json.dumps(definition, ensure_ascii=False)}


def _ids(config: ModelConfig) -> dict[str, int]:
    """Special token ids of the model's configuration; GGUF has keys for three end tokens."""
    ids = {"bos_token_id": config.bos_token_id, "padding_token_id": config.pad_token_id}
    ids |= dict(zip(END_KEYS, config.eos_token_ids, strict=False))
    return {f"tokenizer.ggml.{key}": value for key, value in ids.items() if value is not None}


def _token_list(definition: dict[str, Any], size: int, name: str) -> tuple[list[str], list[int]]:
    """Spelling and type of each row of the embedding."""
    tokens, types = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    is_sentencepiece = vocabulary.is_sentencepiece(definition)
    for spelling, token_id in definition["model"]["vocab"].items():
        is_byte = is_sentencepiece and vocabulary.BYTE.fullmatch(spelling)
        tokens[token_id], types[token_id] = spelling, BYTE if is_byte else NORMAL
    fallback = definition["model"].get("unk_token") if is_sentencepiece else None
    for token in definition["added_tokens"]:
        spelling = token["content"]
        # DeepSeek's role tokens are not marked as special; llama.cpp would find them in text from users.
        is_control = token.get("special") or spelling.startswith(("<｜", "<|"))
        kind = UNKNOWN if spelling == fallback else CONTROL if is_control else USER_DEFINED
        tokens[token["id"]], types[token["id"]] = spelling, kind
    if len(set(tokens)) != size:
        raise TokenizerError(f"{name} has two ids with the same spelling, which llama.cpp does not allow")
    return tokens, types


def _byte_level(definition: dict[str, Any], name: str) -> dict[str, Any]:
    merges = [m if isinstance(m, str) else " ".join(m) for m in definition["model"].get("merges", [])]
    if any(merge.count(" ") != 1 for merge in merges):
        raise TokenizerError(f"{name} merges tokens that contain spaces, which llama.cpp does not allow")
    if (normalizer := definition.get("normalizer")) and normalizer.get("normalizers") != []:
        log.warning(
            "llama.cpp leaves out the normalizer of %s: texts that it changes get other ids there", name
        )
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": split_name(definition, name),
        "tokenizer.ggml.merges": merges,
    }


def _sentencepiece(definition: dict[str, Any], tokens: list[str], name: str) -> dict[str, Any]:
    scores = sentencepiece.scores_of(definition, name)
    prefix = vocabulary.prefix(definition)
    if prefix == "first":
        log.warning("llama.cpp puts a space after special tokens too, where %s puts none", name)
    same = {**definition, "added_tokens": [], "post_processor": None}
    ours, theirs = (
        definitions.compile_definition(d, name) for d in (same, same | sentencepiece.steps(prefix != "never"))
    )
    if ours.encode(PROBE).ids != theirs.encode(PROBE).ids:
        raise TokenizerError(
            f"{name} normalizes or splits texts, which llama.cpp does not do for SentencePiece; "
            "export the model from a folder without tokenizer.json and pass token ids to llama.cpp"
        )
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": [scores.get(token, -float(len(tokens))) for token in tokens],
        "tokenizer.ggml.add_space_prefix": prefix != "never",
    }
