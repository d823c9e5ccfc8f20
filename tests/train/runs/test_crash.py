"""A crash in a step: what stays in the folder, and the sentence that names it and the way out."""

from pathlib import Path

import numpy as np
import pytest
import torch

from shoestring.errors import CrashError, DataError, NonFiniteError, OutOfMemoryError, Stopped
from shoestring.rl.recipe import GRPOConfig, TaskShare
from shoestring.train import state
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.runs.crash import crash_kept, is_out_of_memory, learning_from
from shoestring.train.runs.recipe import RunConfig

ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 51539607552 bytes. Error code 12 (Cannot allocate memory)"
)
CUDA = "CUDA out of memory. Tried to allocate 24.00 GiB. GPU 0 has a total capacity of 139 GiB"


class SomeRun:
    def __init__(self, out: Path, config: RunConfig) -> None:
        self.out, self.step, self.config = out, 6, config


@pytest.fixture
def crash(tmp_path):
    """The error of a step that raised `error`, in a run with this recipe."""

    def make(error: Exception, config: RunConfig | None = None) -> Exception:
        run = SomeRun(tmp_path / "run", config or RunConfig(seed=3))
        with pytest.raises(Exception, match=r".") as caught, crash_kept(run):  # noqa: SIM117
            with learning_from(lambda: {"inputs": torch.arange(4)}):
                raise error
        return caught.value

    return make


def test_an_unforeseen_error_leaves_batch_traceback_and_versions(crash, tmp_path):
    error = crash(ValueError("no such\nexpert"))
    assert type(error) is CrashError
    folder = tmp_path / "run" / "crash"
    assert str(error) == (
        f"step 7 failed (ValueError: no such expert); --resume --out {tmp_path / 'run'} takes it again; "
        f"the batch and the traceback are in {folder}"
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        *("batch.json", "batch.safetensors", "traceback.txt")
    ]
    assert "raise error\nValueError: no such\nexpert" in (folder / "traceback.txt").read_text()
    kept, values = state.load_state(folder / "batch")
    assert torch.equal(kept["inputs"], torch.arange(4))
    assert (values["step"], values["recipe"]["seed"], values["torch"]) == (7, 3, str(torch.__version__))


def test_the_last_crash_takes_the_place_of_the_one_before(crash, tmp_path):
    crash(ValueError("first"))
    crash(KeyError("second"))
    assert "KeyError: 'second'" in (tmp_path / "run" / "crash" / "traceback.txt").read_text()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["crash"]


def test_our_own_errors_keep_their_type(crash, tmp_path):
    error = crash(NonFiniteError("the loss is nan"))
    assert type(error) is NonFiniteError
    assert str(error).startswith("step 7: the loss is nan, and nothing was updated; ")
    assert f"--resume --out {tmp_path / 'run'} --set optim.lr=" in str(error)
    error = crash(DataError("shard 3 is damaged"))
    assert (type(error), str(error).split(";")[0]) == (DataError, "shard 3 is damaged")
    assert (tmp_path / "run" / "crash" / "traceback.txt").is_file()


def test_an_error_outside_of_the_batch_has_a_traceback_alone(tmp_path):
    with pytest.raises(CrashError, match="ZeroDivisionError"), crash_kept(SomeRun(tmp_path, RunConfig())):
        _ = 1 / 0
    assert state.load_state(tmp_path / "crash" / "batch")[0] == {}


@pytest.mark.parametrize("passing", [Stopped("stopped"), KeyboardInterrupt()])
def test_a_stop_is_no_crash(tmp_path, passing):
    with pytest.raises(type(passing)), crash_kept(SomeRun(tmp_path, RunConfig())):
        raise passing
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (MemoryError(), ""),
        (np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype("f4")), " (it asked for 4.00 TiB)"),
        (RuntimeError(ALLOCATOR), " (it asked for 51,540 MB)"),
        (torch.OutOfMemoryError(CUDA), " (it asked for 24.00 GiB)"),
    ],
)
def test_too_little_memory_names_the_settings_that_help(crash, tmp_path, error, asked):
    recipe = GRPOConfig(model="m", tasks=(TaskShare(name="countdown"),), micro_tokens=3000)
    crashed = crash(error, recipe)
    assert type(crashed) is OutOfMemoryError
    assert str(crashed).startswith(
        f"step 7 did not fit into memory{asked}; in smaller parts it has the same result: --resume "
        f"--out {tmp_path / 'run'} --set micro_tokens=1500 --set gradient_checkpointing=true; "
    )
    recipe = PretrainConfig(gradient_checkpointing=True, micro_batch_size=2)
    assert "--set micro_batch_size=1;" in str(crash(error, recipe))
    recipe = PretrainConfig(gradient_checkpointing=True, micro_batch_size=1)
    assert "as small as they get" in str(crash(error, recipe))


def test_other_errors_are_not_for_memory():
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_real_allocation_that_fails_is_recognized():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_a_full_disk_hides_nothing(crash, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "save_state", full)
    error = crash(ValueError("no such expert"))
    assert "ValueError: no such expert" in str(error)
    assert "could not be kept" in str(error)
