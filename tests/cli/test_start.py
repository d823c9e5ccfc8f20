"""The start of a command: what is loaded beside its imports, and what is not looked at again."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from shoestring.cli import start

LIBRARY = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"


def maps_after(arguments: list[str]) -> str:
    """The files that a new process has mapped after read_torch, when its thread has ended."""
    code = (
        "from shoestring.cli.start import read_torch\n"
        f"thread = read_torch({arguments!r})\n"
        "thread and thread.join()\n"
        "import sys; assert 'torch' not in sys.modules\n"
        "print(open('/proc/self/maps').read())"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's library is read beside the imports")
@pytest.mark.skipif((LIBRARY.parent / "libtorch_cuda.so").exists(), reason="this PyTorch is made for GPUs")
def test_a_command_that_runs_a_model_reads_pytorch_at_once() -> None:
    assert str(LIBRARY.resolve()) in maps_after(["run", "mini"])


@pytest.mark.parametrize("arguments", [[], ["list"], ["run", "--help"], ["--help"]])
def test_no_other_command_reads_it(arguments: list[str]) -> None:
    assert start.read_torch(arguments) is None


def test_a_pytorch_that_is_missing_or_for_gpus_is_left_to_its_import(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "torch")
    assert start.read_torch(["run"]) is None
    library = tmp_path / "torch" / "lib"
    library.mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").write_text("")
    for name in (*start.LIBRARIES, "libtorch_cuda.so"):
        (library / name).write_text("")
    assert start.read_torch(["run"]) is None


def test_modules_are_kept_and_garbage_is_looked_for_again() -> None:
    def fail() -> None:
        with start.modules_kept():
            assert not gc.isenabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    gc.unfreeze()
