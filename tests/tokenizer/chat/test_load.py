import json
from pathlib import Path

import pytest

from shoestring.errors import TokenizerError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.load import load_template, template_of
from shoestring.tokenizer.chat.template import pieces_text

HELLO = [{"role": "user", "content": "hello"}]


def rendered(path: Path, tokenizer: Tokenizer) -> str:
    return pieces_text(load_template(path, tokenizer).render(HELLO, with_loss=False))


def test_a_template_file_comes_before_the_config(tokenizer: Tokenizer, tmp_path: Path):
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": "old {{ messages[0].content }}"})
    )
    assert rendered(tmp_path, tokenizer) == "old hello"
    (tmp_path / "chat_template.jinja").write_text("new {{ messages[0].content }}")
    assert rendered(tmp_path, tokenizer) == "new hello"
    assert rendered(tmp_path / "chat_template.jinja", tokenizer) == "new hello"


def test_of_named_templates_the_default_is_meant(tokenizer: Tokenizer, tmp_path: Path):
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "default"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert rendered(tmp_path, tokenizer) == "default"


@pytest.mark.parametrize("config", [None, {}, {"chat_template": 3}, {"chat_template": [{"name": "x"}, 3]}])
def test_no_template_is_an_error_that_names_the_folder(tokenizer: Tokenizer, tmp_path: Path, config):
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match="no chat template; add one as") as caught:
        load_template(tmp_path, tokenizer)
    assert str(tmp_path) in str(caught.value)


def test_unreadable_templates_are_named(tokenizer: Tokenizer, tmp_path: Path):
    file = tmp_path / "chat_template.jinja"
    file.write_bytes(b"\xff\xff")
    with pytest.raises(TokenizerError, match="not UTF-8"):
        load_template(tmp_path, tokenizer)
    file.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(TokenizerError, match="larger than 1024 KiB"):
        load_template(tmp_path, tokenizer)


def test_a_template_may_be_given_as_text_or_as_a_file(tokenizer: Tokenizer, tmp_path: Path):
    file = tmp_path / "t.jinja"
    file.write_text("{{ messages[0].content }}!")
    for source in ("{{ messages[0].content }}!", str(file)):
        pieces = template_of(source, tokenizer).render([{"role": "user", "content": "x"}], with_loss=False)
        assert pieces_text(pieces) == "x!"
    with pytest.raises(TokenizerError, match="neither a template nor the name of a file"):
        template_of("missing.jinja", tokenizer)
