"""Begin tokens and added tokens of tokenizer.json, with transformers and tokenizers as the oracle."""

import json
from pathlib import Path

import pytest

from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.definition import byte_of_char
from shoestring.tokenizer.prompts import read_prompts
from shoestring.tokenizer.questions import PromptStyle, prompt_ids

BEGIN = "<|endoftext|>"


def write(folder: Path, added: dict[str, bool | dict], *, processor=None, **config) -> Tokenizer:
    """A tokenizer of the 256 bytes and these added tokens (special or not), written and loaded."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokens = []
    for number, (spelling, entry) in enumerate(added.items()):
        more = entry if isinstance(entry, dict) else {"special": entry}
        tokens.append({"id": 256 + number, "content": spelling, **plain, **more})
    # Bytes that no UTF-8 has are left out: DeepSeek-LLM has their characters as added tokens instead.
    absent = (0xC0, 0xC1, *range(0xF5, 256))
    vocab = {f"no{byte}" if byte in absent else char: byte for char, byte in byte_of_char().items()}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": tokens,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": processor,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return Tokenizer.load(folder)


def template(*single: str) -> dict:
    """A post-processor that puts tokens around the text `$A`."""
    names = {name for name in single if name != "$A"}
    parts = [
        {"Sequence": {"id": "A", "type_id": 0}}
        if name == "$A"
        else {"SpecialToken": {"id": name, "type_id": 0}}
        for name in single
    ]
    tokens = {
        name: {"id": name, "ids": [256 + sorted(names).index(name)], "tokens": [name]} for name in names
    }
    return {"type": "TemplateProcessing", "single": parts, "pair": parts, "special_tokens": tokens}


ROLES = {"bos_token": BEGIN, "eos_token": "<|im_end|>"}
POST_PROCESSORS = {
    "that begins": (template(BEGIN, "$A"), {}),
    "that does not exist": (None, {}),
    "that only ends, with the same token": (template("$A", BEGIN), {}),
    "that is beside another setting": (template(BEGIN, "$A"), {"add_eos_token": False}),
    "that null leaves alone": (template(BEGIN, "$A"), {"add_bos_token": None}),
}


def check_begin(tokenizer: Tokenizer, begin: tuple[int, ...], folder: Path) -> None:
    assert tokenizer.begin_ids == begin
    assert read_prompts("hi", tokenizer)[0].token_ids == (*begin, *b"hi")
    question = prompt_ids("hi", tokenizer, None, PromptStyle(format="{question}"))
    assert question.ids == (*begin, *b"hi")
    tokenizer.save(folder)
    assert Tokenizer.load(folder).begin_ids == begin


@pytest.mark.parametrize("rule", POST_PROCESSORS)
def test_a_post_processor_begins_texts_as_in_transformers(rule, tmp_path):
    from transformers import AutoTokenizer

    processor, config = POST_PROCESSORS[rule]
    tokenizer = write(
        tmp_path / "a", {BEGIN: True, "<|im_end|>": True}, processor=processor, **ROLES, **config
    )
    theirs = AutoTokenizer.from_pretrained(tmp_path / "a")("hi").input_ids
    check_begin(tokenizer, (256,) if theirs[0] == 256 else (), tmp_path / "b")


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("processor", [None, template(BEGIN, "$A")])
def test_add_bos_token_decides_before_the_post_processor(adds, processor, tmp_path):
    added = {BEGIN: True, "<|im_end|>": True}
    tokenizer = write(tmp_path / "a", added, processor=processor, **ROLES, add_bos_token=adds)
    check_begin(tokenizer, (256,) if adds else (), tmp_path / "b")


def test_no_begin_token_without_one(tmp_path):
    tokenizer = write(tmp_path, {"<|im_end|>": True}, add_bos_token=True, eos_token="<|im_end|>")
    assert tokenizer.begin_ids == ()
    assert tokenizer.model_ids == {"bos_token_id": None, "eos_token_id": 256, "pad_token_id": None}


def test_tokenizers_trained_here_begin_texts_also_in_old_folders(texts, tmp_path):
    tokenizer = Tokenizer.train(texts[:1], 400)
    tokenizer.save(tmp_path)
    assert tokenizer.begin_ids == Tokenizer.load(tmp_path).begin_ids == (0,)
    file = tmp_path / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    assert config.pop("add_bos_token") is True
    file.write_text(json.dumps(config), encoding="utf-8")
    assert Tokenizer.load(tmp_path).begin_ids == (0,)


TEXT_TOKENS = {
    "ö": False,  # DeepSeek-LLM has letters as added tokens
    "<tool_call>": False,
    "</tool_call>": False,
    "[TOOL]": {"special": False, "single_word": True},
    "Word": {"special": False, "normalized": True},
    "<tool_response>": {"special": False, "lstrip": True},
}
MARKS = {BEGIN: True, "<|im_end|>": True, "[END]": True, "<｜User｜>": False, "<|fim_prefix|>": False}
TAGS = {"<think>": False, "</think>": False}
INPUTS = [
    "schön <tool_call>{}</tool_call>",
    "ööö<tool_call><tool_call>",
    "a[TOOL]b [TOOL] c",
    "Word word WordWord",
    "x  <tool_response> y",
    f"<tool_call>{BEGIN}<|im_end|>[END]</tool_call>",
    "",
]


@pytest.mark.parametrize("text", INPUTS)
def test_added_tokens_that_are_not_special_are_found_in_text_as_in_tokenizers(text, tmp_path):
    from tokenizers import Tokenizer as Backend

    ours = write(tmp_path, {**MARKS, **TEXT_TOKENS})
    theirs = Backend.from_file(str(tmp_path / "tokenizer.json"))
    theirs.encode_special_tokens = True
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("spelling", [*MARKS, *TAGS])
def test_marks_and_thinking_tags_never_come_from_text(spelling, tmp_path):
    tokenizer = write(tmp_path, {**MARKS, **TAGS, **TEXT_TOKENS})
    assert tokenizer.encode(f"a{spelling}b") == [*f"a{spelling}b".encode()]
    assert tokenizer.encode(spelling, allow_special=True) == [tokenizer.special_id(spelling)]


def test_a_role_makes_a_token_special(tmp_path):
    tokenizer = write(tmp_path, {"[E]": False}, eos_token="[E]")
    assert tokenizer.encode("[E]") == [*b"[E]"]
    assert tokenizer.hidden_ids == {256}


def test_what_decoding_leaves_out_is_what_transformers_leaves_out(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = write(tmp_path, {**MARKS, **TAGS, **TEXT_TOKENS}, eos_token="<|im_end|>")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    letter = tokenizer.encode("ö")[0]  # transformers reads it as a byte and loses it
    ids = [i for i in range(tokenizer.vocab_size - 1, 255, -1) if i != letter]
    text = tokenizer.decode(ids, skip_special=True)
    assert text == theirs.decode(ids, skip_special_tokens=True)
    assert "<tool_call>" in text
    assert "<|im_end|>" not in text
