"""Q4_K and Q6_K through llama.cpp's tool, which a small program stands in for."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shoestring.errors import ConfigError, MissingDependencyError
from shoestring.model.gguf.exporter import export_gguf
from shoestring.model.gguf.file import GGUFFile
from shoestring.model.presets import TINY
from shoestring.model.transformer import Transformer

MODEL = Transformer(replace(TINY, num_nextn_predict_layers=0))


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A function that makes `llama-quantize` of a Python program."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def make(program: str) -> None:
        (tmp_path / "bin").mkdir()
        file = tmp_path / "bin" / "llama-quantize"
        file.write_text(f"#!{sys.executable}\nimport shutil, sys\n{program}\n")
        file.chmod(0o755)

    return make


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "bin")


@pytest.mark.parametrize(("type", "name"), [("q4_k", "Q4_K"), ("q6_k", "Q6_K")])
def test_the_tool_gets_the_model_in_full_precision(tool, tmp_path, type, name):
    tool(f"assert sys.argv[3] == {name!r}\nshutil.copy(sys.argv[1], sys.argv[2])")
    export_gguf(MODEL, tmp_path / "new" / "m.gguf", type)
    kinds = {tensor.type.name for tensor in GGUFFile.open(tmp_path / "new" / "m.gguf").tensors.values()}
    assert kinds == {"F32"}
    assert left(tmp_path / "new") == ["m.gguf"]


def test_without_the_tool_one_sentence_says_what_would_do(tool, tmp_path):
    with pytest.raises(
        MissingDependencyError, match=r"llama-quantize, which is not on the PATH.*q8_0 or q4_0"
    ):
        export_gguf(MODEL, tmp_path / "m.gguf", "q4_k")
    assert left(tmp_path) == []


@pytest.mark.parametrize("program", ["print('main: failed to quantize')\nsys.exit(1)", "sys.exit(0)"])
def test_a_tool_that_fails_leaves_nothing(tool, tmp_path, program):
    tool(program)
    with pytest.raises(ConfigError, match=r"llama-quantize did not write m\.gguf: "):
        export_gguf(MODEL, tmp_path / "m.gguf", "q6_k")
    assert left(tmp_path) == []
