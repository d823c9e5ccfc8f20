"""What holds for every test: one thread, no network, no deadline, nothing of the user's own settings."""

import os
import socket
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Before torch is imported anywhere: tiny tensors run faster on one thread, and two cores may be shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

settings.register_profile("shoestring", deadline=None)  # a busy machine is slow, not wrong
settings.load_profile("shoestring")

LOCAL = ("127.0.0.1", "localhost", "::1")


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
