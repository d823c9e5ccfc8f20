"""What holds for every test: one thread, no network, no deadline, nothing of the user's own settings."""

import gc
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from shoestring import figures
from tests.order import (  # noqa: F401
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_report_header,
    pytest_xdist_make_scheduler,
)

if TYPE_CHECKING:
    from shoestring.device import Runtime

# Before torch is imported anywhere: tiny tensors run faster on one thread, and two cores may be shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Each process would compile every module and test anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

settings.register_profile("shoestring", deadline=None)  # a busy machine is slow, not wrong
settings.load_profile("shoestring")

LOCAL = ("127.0.0.1", "localhost", "::1")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Leave modules and collected tests, which stay, out of garbage collections."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for another machine fails here, at once, and not in somebody's offline build."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:  # type: ignore[index]
            raise AssertionError(f"a test tried to connect to {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(autouse=True)
def empty_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Models and user configuration are looked for in this test run's folder; compiled kernels are not."""
    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    monkeypatch.setenv("HF_HOME", str(home / "huggingface"))
    for name in [name for name in os.environ if name.startswith("SHOESTRING_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def exact_small_numbers() -> Iterator[None]:
    """`device.choose` lets the processor flush denormal numbers; the next test gets them back."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@cache
def code_version() -> dict[str, Any]:
    """What receipts say of the package's sources, which are read once."""
    return sys.modules["shoestring.train.report.receipt"].code_version()


@pytest.fixture(autouse=True)
def quick_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run measures what the machine reaches with small matrices, and reads no source for its receipt."""
    if (device := sys.modules.get("shoestring.device")) is not None:
        monkeypatch.setattr(device, "PEAK_S", 0.0)
        monkeypatch.setattr(device, "PEAK_SIZE", {"cpu": 64, "cuda": 64})
    if (receipt := sys.modules.get("shoestring.train.report.receipt")) is not None:
        known = code_version()
        monkeypatch.setattr(receipt, "code_version", lambda: known)


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for the disk: what a process has written is read by others without that."""
    monkeypatch.setattr(os, "fsync", lambda _file: None)


@pytest.fixture(autouse=True)
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of few dots, whose parts may overlap; the tests that look at figures have them as they are."""
    monkeypatch.setattr(figures, "DPI", 30)
    monkeypatch.setattr(figures, "LAYOUT", None)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a folder with a random tiny model of a seed, its tokenizer and DeepSeek's template."""
    import torch

    from shoestring.model.hf.folder import save_model
    from shoestring.model.presets import TINY
    from shoestring.model.transformer import Transformer, initialize
    from shoestring.tokenizer.bpe import Tokenizer
    from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate

    def make(seed: int, texts: tuple[str, ...] = ("1+2=3 so 4*5=20",), **changes: object) -> Path:
        root = tmp_path_factory.mktemp("model")
        words = root / "words"
        words.mkdir()
        tokenizer = Tokenizer.train(texts, 320)
        tokenizer.save(words)
        DeepSeekTemplate().save(words)
        ends = {
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": tokenizer.pad_id,
        }
        shape = replace(TINY, vocab_size=320, initializer_range=0.2, **ends, **changes)
        model = initialize(Transformer(shape), torch.Generator().manual_seed(seed))
        save_model(model, root / "model", tokenizer_files=words, name=f"tiny {seed}")
        return root / "model"

    return make


@pytest.fixture(scope="session")
def runtime() -> "Runtime":
    """Float32 on the CPU."""
    import torch

    from shoestring.device import Runtime

    return Runtime(device=torch.device("cpu"), compute_dtype=torch.float32)


@pytest.fixture(scope="session")
def teacher_folder(model_folder: Callable[..., Path]) -> Path:
    return model_folder(1)


@pytest.fixture(scope="session")
def student_folder(model_folder: Callable[..., Path]) -> Path:
    return model_folder(2)


@pytest.fixture
def oversized(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a model's folder and gives its tokenizer 300 more tokens than its embedding has rows."""

    def make(folder: Path) -> Path:
        copy = tmp_path / f"oversized-{folder.name}"
        shutil.copytree(folder, copy)
        file = copy / "tokenizer.json"
        content = json.loads(file.read_text())
        first = 1 + max(
            [token["id"] for token in content["added_tokens"]] + [*content["model"]["vocab"].values()]
        )
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        content["added_tokens"] += [
            {"id": first + place, "content": f"<|extra{place}|>", "special": True, **plain}
            for place in range(300)
        ]
        file.write_text(json.dumps(content))
        return copy

    return make
