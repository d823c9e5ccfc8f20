"""Chat templates in GGUF by their names: the default is used, the others are kept and named."""

import json
import logging
from pathlib import Path

import pytest

from shoestring.errors import TokenizerError
from shoestring.model.gguf.file import GGUFFile
from shoestring.model.gguf.vocabulary.templates import save_templates, write_templates
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.load import load_template

PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
TOOLS, RAG = PLAIN + "tools", PLAIN + "rag"
KEY = "tokenizer.chat_template"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["a b"], 300)


def as_file(**templates) -> GGUFFile:
    metadata = {KEY + ("" if name == "none" else f".{name}"): text for name, text in templates.items()}
    return GGUFFile(path=Path("m.gguf"), num_bytes=0, metadata=metadata, tensors={})


def test_the_default_is_used_and_the_others_kept(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        save_templates(as_file(none=PLAIN, tool_use=TOOLS, rag=RAG), tmp_path)
    assert "tool_use, rag beside the default" in caplog.text
    assert (tmp_path / "chat_template.jinja").read_text() == PLAIN
    assert (tmp_path / "additional_chat_templates" / "rag.jinja").read_text() == RAG
    written = write_templates(tmp_path, {})
    assert written == {
        KEY: PLAIN,
        f"{KEY}.rag": RAG,
        f"{KEY}.tool_use": TOOLS,
        "tokenizer.chat_templates": ["rag", "tool_use"],
    }


def test_a_default_by_name_is_the_default(tmp_path):
    save_templates(as_file(default=PLAIN), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["chat_template.jinja"]


def test_without_a_default_the_others_are_named(tmp_path, caplog, tokenizer: Tokenizer):
    with caplog.at_level(logging.WARNING):
        save_templates(as_file(tool_use=TOOLS), tmp_path)
    assert "tool_use beside no default" in caplog.text
    with pytest.raises(TokenizerError, match=r"no chat template named default \(it has tool_use\)"):
        load_template(tmp_path, tokenizer)


def test_a_name_never_leaves_the_folder(tmp_path):
    metadata = {f"{KEY}.../../x": TOOLS, f"{KEY}.a/b": TOOLS, f"{KEY}.ok": 7, KEY: PLAIN}
    (tmp_path / "in").mkdir()
    save_templates(GGUFFile(path=Path("m"), num_bytes=0, metadata=metadata, tensors={}), tmp_path / "in")
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "chat_template.jinja"]


def test_a_list_in_tokenizer_config_is_written_by_name(tmp_path, tokenizer: Tokenizer):
    entries = [{"name": "default", "template": PLAIN}, {"name": "rag", "template": RAG}, {"name": 3}]
    settings = {"chat_template": entries}
    assert write_templates(tmp_path, settings) == {
        KEY: PLAIN, f"{KEY}.rag": RAG, "tokenizer.chat_templates": ["rag"]
    }  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert load_template(tmp_path, tokenizer).render([{"role": "user", "content": "hi"}])[0].text == "hi"
