"""Tokenizers as GGUF metadata and back: equal ids, safe control tokens, and what cannot be held refused."""

import json
import sysconfig
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shoestring.errors import CheckpointError, TokenizerError
from shoestring.model.gguf.file import GGUFFile
from shoestring.model.gguf.tokenizer import (
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    read_tokenizer,
    save_tokenizer,
)
from shoestring.model.gguf.vocabulary.special import END_KEYS
from shoestring.model.gguf.vocabulary.templates import save_templates
from shoestring.model.gguf.vocabulary.writer import write_tokenizer
from shoestring.model.presets import TINY
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import JINJA, DeepSeekTemplate
from shoestring.tokenizer.chat.load import load_template
from shoestring.tokenizer.definition import SMALLEST_VOCABULARY
from shoestring.tokenizer.special import BOS, EOS

CONFIG = replace(TINY, vocab_size=640)
TEXTS = [
    "Hello, world!",
    "It's 12345\n\n  naïve",
    "我想在apple工作1314天",
    "x" * 300,
    "<think>\t\r\n",
    "é̸ 😀 ½",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Our tokenizer with a few ids fewer than the model has rows, and our template."""
    path = tmp_path_factory.mktemp("tokenizer")
    source = Path(sysconfig.get_path("stdlib"), "calendar.py").read_text(encoding="utf-8")
    Tokenizer.train([source], 600).save(path)
    (path / "chat_template.jinja").write_text(JINJA, encoding="utf-8")
    return path


def as_file(metadata, **changes) -> GGUFFile:
    return GGUFFile(path=Path("m.gguf"), num_bytes=0, metadata=metadata | changes, tensors={})


def without_json(metadata):
    return {key: value for key, value in metadata.items() if key != "tokenizer.huggingface.json"}


def test_every_row_has_a_token_and_a_type(folder):
    metadata = write_tokenizer(folder, CONFIG)
    tokenizer = Tokenizer.load(folder)
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == 640 == len(set(tokens))
    assert metadata["tokenizer.ggml.pre"] == "deepseek-v3"
    assert tokens[tokenizer.bos_id] == BOS
    kinds = {tokens[i]: kind for i, kind in enumerate(types)}
    assert (kinds["<｜User｜>"], kinds["<think>"], kinds["a"]) == (CONTROL, USER_DEFINED, NORMAL)
    assert types[tokenizer.vocab_size :] == [UNUSED] * (640 - tokenizer.vocab_size)
    ids = [metadata[f"tokenizer.ggml.{role}_token_id"] for role in ("bos", "eos", "padding")]
    assert ids == [tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id]
    assert metadata["tokenizer.ggml.add_bos_token"] is True  # as `pretrain` frames documents
    assert metadata["tokenizer.chat_template"] == JINJA


@pytest.mark.parametrize("whole", [True, False])
def test_a_round_trip_gives_equal_ids(folder, whole, tmp_path):
    metadata = write_tokenizer(folder, CONFIG)
    file = as_file(metadata if whole else without_json(metadata))
    before, after = Tokenizer.load(folder), read_tokenizer(file)
    texts = TEXTS if whole else [text for text in TEXTS if len(text) < 128]  # ours cuts runs, theirs does not
    assert after.encode_batch(texts) == before.encode_batch(texts)
    assert (after.specials, after.roles) == (before.specials, before.roles)
    save_tokenizer(file, after, tmp_path)
    save_templates(file, tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode_batch(texts, allow_special=True) == before.encode_batch(texts, allow_special=True)
    assert load_template(tmp_path, loaded) == DeepSeekTemplate()
    again = write_tokenizer(tmp_path, CONFIG)
    assert without_json(again) == without_json(metadata)


def test_a_folder_without_tokenizer_says_so(tmp_path):
    assert (
        write_tokenizer(tmp_path, CONFIG) == write_tokenizer(None, CONFIG) == {"tokenizer.ggml.model": "none"}
    )
    assert read_tokenizer(as_file({"tokenizer.ggml.model": "none"})) is None
    assert read_tokenizer(as_file({})) is None


def test_ids_come_from_the_configuration_where_no_tokenizer_says_otherwise(folder):
    config = replace(CONFIG, bos_token_id=7, eos_token_id=(8, 9), pad_token_id=3)
    ids = {
        f"tokenizer.ggml.{role}_token_id": value
        for role, value in (("bos", 7), ("eos", 8), ("eot", 9), ("padding", 3))
    }
    assert write_tokenizer(None, config) == ids | {"tokenizer.ggml.model": "none"}
    assert write_tokenizer(folder, config)["tokenizer.ggml.eos_token_id"] == Tokenizer.load(folder).eos_id


@pytest.mark.parametrize("eos", [(1, 30), (1, 30, 31), (30, 1)])
def test_several_end_tokens_survive_a_round_trip(folder, eos):
    metadata = write_tokenizer(folder, replace(CONFIG, eos_token_id=eos))
    ends = {metadata.get(f"tokenizer.ggml.{key}") for key in END_KEYS}
    assert ends - {None} == set(eos)
    assert metadata["tokenizer.ggml.eos_token_id"] == Tokenizer.load(folder).eos_id == 1


@pytest.mark.parametrize(
    ("pre", "flag", "begins"),
    [("qwen2", None, False), ("qwen2", True, True), ("llama-bpe", None, True), ("llama3", False, False)],
)
def test_the_begin_token_is_that_of_llama_cpp(folder, pre, flag, begins):
    metadata = without_json(write_tokenizer(folder, CONFIG)) | {"tokenizer.ggml.pre": pre}
    del metadata["tokenizer.ggml.add_bos_token"]
    if flag is not None:
        metadata["tokenizer.ggml.add_bos_token"] = flag
    assert read_tokenizer(as_file(metadata)).begin_ids == ((0,) if begins else ())


def test_a_tokenizer_with_more_ids_than_rows_is_refused(folder):
    with pytest.raises(TokenizerError, match="embedding has only 256 rows"):
        write_tokenizer(folder, TINY)


def rewritten(folder: Path, target: Path, change) -> Path:
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(data)
    (target / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    (target / "tokenizer_config.json").write_text("{}")
    return target


def test_what_llama_cpp_cannot_hold_is_refused(folder, tmp_path):
    def repeat(data):
        data["model"]["vocab"]["[PAD630]"] = 629

    with pytest.raises(TokenizerError, match="has two ids with the same spelling"):
        write_tokenizer(rewritten(folder, tmp_path, repeat), CONFIG)


def test_begin_tokens_that_the_post_processor_adds_are_told(folder, tmp_path):
    def add(data):
        token = {"id": BOS, "ids": [0], "tokens": [BOS]}
        single = [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        data["post_processor"] = {
            "type": "TemplateProcessing", "pair": [], "single": single, "special_tokens": {BOS: token}
        }  # fmt: skip

    rewritten(folder, tmp_path, add)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": BOS}))
    assert write_tokenizer(tmp_path, CONFIG)["tokenizer.ggml.add_bos_token"] is True
    said = {"bos_token": BOS, "add_bos_token": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    assert write_tokenizer(tmp_path, CONFIG)["tokenizer.ggml.add_bos_token"] is False


def test_other_begin_tokens_than_the_one_are_refused(folder, tmp_path):
    def add(data):
        parts = [{"SpecialToken": {"id": name, "type_id": 0}} for name in (BOS, EOS)]
        tokens = {name: {"id": name, "ids": [i], "tokens": [name]} for i, name in enumerate((BOS, EOS))}
        data["post_processor"] = {
            "type": "TemplateProcessing", "pair": [], "special_tokens": tokens,
            "single": [*parts, {"Sequence": {"id": "A", "type_id": 0}}],
        }  # fmt: skip
        data["added_tokens"].pop()  # so it is no tokenizer of this package, which add their begin token

    rewritten(folder, tmp_path, add)
    for settings in ({}, {"bos_token": BOS}, {"bos_token": EOS}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        with pytest.raises(TokenizerError, match="begins texts with other tokens than its bos_token"):
            write_tokenizer(tmp_path, CONFIG)


WRONG = {
    "kind": (
        {"tokenizer.ggml.model": "t5"},
        "of kind 't5'; supported are 'gpt2' .* and 'llama' .*--weights-only",
    ),
    "no tokens": ({"tokenizer.ggml.tokens": None}, "no list of texts at tokenizer.ggml.tokens"),
    "tokens of numbers": ({"tokenizer.ggml.tokens": np.arange(5)}, "no list of texts"),
    "no merges": ({"tokenizer.ggml.merges": "a b"}, "no list of texts at tokenizer.ggml.merges"),
    "types": ({"tokenizer.ggml.token_type": [1, 2]}, "not have one token_type for each"),
    "types of floats": (
        {"tokenizer.ggml.token_type": np.full(640, np.nan)},
        "not have one token_type for each",
    ),
    "split": ({"tokenizer.ggml.pre": "gemma4"}, "splits text as 'gemma4'.*--weights-only"),
    "split as number": ({"tokenizer.ggml.pre": 3}, "splits text as '3'.*--weights-only"),
    "space first": (
        {"tokenizer.ggml.add_space_prefix": True},
        "add_space_prefix = True is not supported: false",
    ),
    "spaces removed": (
        {"tokenizer.ggml.remove_extra_whitespaces": True},
        "remove_extra_whitespaces = True is not",
    ),
    "map": (
        {"tokenizer.ggml.precompiled_charsmap": np.zeros(9, np.int8)},
        "precompiled_charsmap = .* is not",
    ),
    "lower case": (
        {"tokenizer.ggml.normalizer.lowercase": True},
        "normalizer.lowercase = True is not supported",
    ),
    "separator": ({"tokenizer.ggml.add_sep_token": True}, "add_sep_token = True is not supported"),
    "suppressed": (
        {"tokenizer.ggml.suppress_tokens": np.array([0])},
        "suppress_tokens = .* is not supported",
    ),
    "twice": ({"tokenizer.ggml.tokens": ["a"] * 640}, "has two tokens with the same spelling"),
    "unknown merge": ({"tokenizer.ggml.merges": ["qq zz"]}, "cannot be used as a tokenizer"),
    "merge of one": ({"tokenizer.ggml.merges": ["qq"]}, "cannot be used as a tokenizer"),
    "json": ({"tokenizer.huggingface.json": "{"}, "is not JSON"),
    "deep json": ({"tokenizer.huggingface.json": "[" * 100_000}, "is not JSON"),
    "json list": ({"tokenizer.huggingface.json": "[]"}, "is not an object"),
    "json unigram": (
        {"tokenizer.huggingface.json": '{"model": {"type": "Unigram"}}'},
        "only BPE is supported",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_tokenizer_is_one_sentence(folder, case):
    changes, words = WRONG[case]
    file = as_file(without_json(write_tokenizer(folder, CONFIG)), **changes)
    with pytest.raises((CheckpointError, TokenizerError), match=words) as caught:
        read_tokenizer(file)
    assert "m.gguf" in str(caught.value)


def test_a_stored_tokenizer_of_other_tokens_is_refused(folder):
    metadata = write_tokenizer(folder, CONFIG)
    metadata["tokenizer.ggml.tokens"][SMALLEST_VOCABULARY + 3] = "other"
    with pytest.raises(CheckpointError, match="with other tokens than its list"):
        read_tokenizer(as_file(metadata))


def test_keys_that_change_no_id_are_taken(folder):
    more = {
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.fim_pre_token_id": 7,
        "tokenizer.ggml.seperator_token_id": 1,
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.scores": np.zeros(640, np.float32),
        "tokenizer.ggml.suppress_tokens": np.zeros(0, np.int32),
        "tokenizer.ggml.normalizer.lowercase": False,
    }
    file = as_file(without_json(write_tokenizer(folder, CONFIG)), **more)
    assert read_tokenizer(file).encode("Hello") == Tokenizer.load(folder).encode("Hello")


def test_the_end_of_a_turn_is_a_special_token_whatever_the_file_calls_it(folder):
    """The file names it as eot, and marks it as ordinary text."""
    metadata = without_json(write_tokenizer(folder, CONFIG))
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    tokens[630], types[630] = "<end_of_turn>", NORMAL
    tokenizer = read_tokenizer(as_file(metadata, **{"tokenizer.ggml.eot_token_id": 630}))
    assert tokenizer.special_id("<end_of_turn>") == 630
    assert 630 not in tokenizer.encode("<end_of_turn>")
    types[630] = USER_DEFINED
    assert 630 in read_tokenizer(as_file(metadata)).encode("<end_of_turn>")


def test_an_ordinary_token_that_ends_turns_stays_text(folder):
    metadata = without_json(write_tokenizer(folder, CONFIG))
    newline = metadata["tokenizer.ggml.tokens"].index("\u010a")
    tokenizer = read_tokenizer(as_file(metadata, **{"tokenizer.ggml.eot_token_id": newline}))
    assert newline in tokenizer.encode("a\n")


def test_qwens_own_tokenizer_composes_characters_and_others_do_not(folder):
    metadata = without_json(write_tokenizer(folder, CONFIG))
    composed, apart = "\u00e9", "e\u0301"
    qwen = read_tokenizer(as_file(metadata, **{"tokenizer.ggml.pre": "qwen2"}))
    hunyuan = read_tokenizer(as_file(metadata, **{"tokenizer.ggml.pre": "hunyuan"}))
    assert qwen.encode(apart) == qwen.encode(composed) == hunyuan.encode(composed)
    assert hunyuan.encode(apart) != hunyuan.encode(composed)


def test_an_empty_token_is_none(folder):
    metadata = without_json(write_tokenizer(folder, CONFIG))
    metadata["tokenizer.ggml.tokens"][630:632] = ["", ""]
    metadata["tokenizer.ggml.token_type"][630:632] = [NORMAL, NORMAL]
    assert read_tokenizer(as_file(metadata)).token_bytes(630) == b""


def test_a_whole_word_never_becomes_a_special_token(folder):
    """Words of the vocabulary are taken without merging, but `nothink` is a mark of templates."""
    metadata = without_json(write_tokenizer(folder, CONFIG))
    end = Tokenizer.load(folder).vocab_size
    metadata["tokenizer.ggml.tokens"][end] = "nothink"
    metadata["tokenizer.ggml.token_type"][end] = CONTROL
    tokenizer = read_tokenizer(as_file(metadata, **{"tokenizer.ggml.pre": "llama-bpe"}))
    assert tokenizer.special_id("nothink") == end
    assert end not in tokenizer.encode("nothink")
    assert tokenizer.encode("nothink", allow_special=True) == [end]
