"""A live `shoestring serve` of the embedded model, for clients that people use."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoestring.model.hf.hub import resolve
from shoestring.tokenizer import special as sp
from shoestring.tokenizer.bpe import Tokenizer

NAMES = ("mini", "deepseek-chat", "deepseek-reasoner", "claude-sonnet-4-5")
CONTEXT = 16384
"""Tokens of context: the tools of some clients are longer than the 512 that the model was trained with."""
CALLS = {'"': 20, "}": 21, sp.EOS: 18, sp.TOOL_CALLS_END: 20, sp.THINK: -100}
"""Biases with which tool calls end: the model, which knows sums only, would go on with a string for ever."""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model in a folder of its own, with a longer context."""
    folder = tmp_path_factory.mktemp("models") / "mini"
    shutil.copytree(resolve("mini"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": CONTEXT}))
    return folder


@pytest.fixture(scope="session")
def root(model: Path) -> Iterator[str]:
    """The root URL of the server."""
    yield from serve(model)


@pytest.fixture(scope="session")
def calling_root(model: Path) -> Iterator[str]:
    """The root URL of a server whose sampling ends tool calls; what it says besides is of no use."""
    tokenizer = Tokenizer.load(model)
    biases = {tokenizer.encode(text, allow_special=True)[0]: bias for text, bias in CALLS.items()}
    settings = [f"--set=logit_bias.{token}={bias}" for token, bias in biases.items()]
    yield from serve(model, "--set=frequency_penalty=1", "--set=min_tokens=8", *settings)


def serve(model: Path, *settings: str) -> Iterator[str]:
    """Run `shoestring serve` on a free port, the model under several names; its root URL."""
    aliases = [f"--set=aliases.{name}={model}" for name in NAMES]
    command = [sys.executable, "-m", "shoestring.cli.main", "serve", str(model), "--port", "0"]
    command += [*aliases, *settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("serving "), line
        yield line.split()[-1]
        server.terminate()
