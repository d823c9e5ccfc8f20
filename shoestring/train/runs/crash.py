"""A crash in a step: its batch and traceback stay in the run's folder, and one sentence says how to go on."""

import platform
import re
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

import shoestring
from shoestring import config as configs
from shoestring.durable import new_folder
from shoestring.errors import CrashError, NonFiniteError, OutOfMemoryError, ShoestringError, Stopped
from shoestring.train import state
from shoestring.train.report.receipt import utc_now
from shoestring.train.runs.recipe import CRASH_FOLDER, RunConfig

_PARTS = ("micro_tokens", "micro_batch_size")
"""Settings that bound the memory of a step and not its result."""


class Run(Protocol):
    """A run, as far as a report of its crash needs it."""

    out: Path
    step: int

    @property
    def config(self) -> RunConfig: ...


class _BatchFailure(Exception):
    """An error while a batch was learned from; the cause is the error itself."""

    def __init__(self, batch: Mapping[str, Tensor]) -> None:
        super().__init__("a batch failed")
        self.batch = batch


@contextmanager
def learning_from(batch: Callable[[], Mapping[str, Tensor]]) -> Iterator[None]:
    """Let an error take along the batch that was learned from, to where `crash_kept` saves it."""
    try:
        yield
    except Exception as error:
        raise _BatchFailure(batch()) from error


@contextmanager
def crash_kept(run: Run) -> Iterator[None]:
    """Save what is known of an error in a step in `out/crash`, in place of an earlier one, and name it.

    A ShoestringError keeps its type. Any other error becomes OutOfMemoryError or CrashError. Stopped passes.
    """
    try:
        yield
    except Stopped:
        raise
    except _BatchFailure as failure:
        assert isinstance(failure.__cause__, Exception)  # noqa: PT017 (not a test)
        raise _kept(run, failure.__cause__, failure.batch) from failure.__cause__
    except Exception as error:
        raise _kept(run, error, {}) from error


def _kept(run: Run, error: Exception, batch: Mapping[str, Tensor]) -> ShoestringError:
    try:
        _save(run, error, batch)
        place = f"; the batch and the traceback are in {run.out / CRASH_FOLDER}"
    except Exception as why:  # a full disk must not hide what went wrong
        place = f"; the batch could not be kept ({why})"
    step, again = f"step {run.step + 1:,}", f"--resume --out {run.out}"
    if isinstance(error, NonFiniteError):
        return NonFiniteError(
            f"{step}: {error}, and nothing was updated; go on with a lower rate: "
            f"{again} --set optim.lr=...{place}"
        )
    if isinstance(error, ShoestringError):
        return type(error)(f"{error}{place}")
    if is_out_of_memory(error):
        return OutOfMemoryError(
            f"{step} did not fit into memory{_wanted(error)}; {_way_out(run, again)}{place}"
        )
    text = " ".join(str(error).split())[:200]
    return CrashError(f"{step} failed ({type(error).__name__}: {text}); {again} takes it again{place}")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is Python's, numpy's or PyTorch's for too little memory, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(
        re.search(r"DefaultCPUAllocator|out of memory|can't allocate memory", str(error))
    )


def _wanted(error: Exception) -> str:
    """The memory that could not be had, where the error says it."""
    match = re.search(r"allocate (?:([\d.]+ ?[KMGT]iB)|(\d+) bytes)", str(error))
    if match is None:
        return ""
    return f" (it asked for {match[1] or f'{int(match[2]) / 1e6:,.0f} MB'})"


def _way_out(run: Run, again: str) -> str:
    """The settings by which the same step needs less memory."""
    settings = configs.table(run.config)
    sizes = [f"{name}={settings[name] // 2}" for name in _PARTS if settings.get(name, 0) > 1]
    sizes += [] if run.config.gradient_checkpointing else ["gradient_checkpointing=true"]
    if not sizes:
        return "its parts are as small as they get: take a shorter seq_len or LoRA in another --out"
    return f"in smaller parts it has the same result: {again} {' '.join(f'--set {size}' for size in sizes)}"


def _save(run: Run, error: Exception, batch: Mapping[str, Tensor]) -> None:
    final = run.out / CRASH_FOLDER
    values = {
        "step": run.step + 1,
        "error": f"{type(error).__name__}: {error}",
        "time": utc_now(),
        "shoestring": shoestring.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "recipe": configs.table(run.config),
    }
    text = "".join(traceback.format_exception(error))
    shutil.rmtree(final, ignore_errors=True)
    with new_folder(final, needed_bytes=sum(tensor.nbytes for tensor in batch.values())) as folder:
        (folder / "traceback.txt").write_text(text, encoding="utf-8")
        state.save_state(folder / "batch", batch, values)
