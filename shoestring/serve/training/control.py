"""Trainings that the service starts, stops and resumes: each a `shoestring` in a process of its own."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from shoestring.errors import StorageError
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.lazy import ModelMemory
from shoestring.serve.training.folder import last_line, read_json, read_toml
from shoestring.serve.training.stages import is_name, verb_of
from shoestring.train.runs.lock import holder

LOG = "training.log"
"""File with all that a training prints, in its run's folder."""
PULSE_S = 0.5
STOP_CODE = 75
"""The exit code of a training that was stopped and saved."""


class RunControl:
    """The trainings of this service. Use it on one event loop."""

    def __init__(self, memory: ModelMemory | None = None) -> None:
        """While one of them goes on, the models in `memory` yield to it; without, it yields to everyone."""
        self._memory = memory
        self._children: dict[Path, subprocess.Popen[bytes]] = {}

    @property
    def is_training(self) -> bool:
        """Return whether a training that was started here goes on."""
        return any(child.poll() is None for child in self._children.values())

    @property
    def yields(self) -> bool:
        """Return whether the models yield to a training now."""
        return self._memory is not None and self._memory.yields

    def exit_code(self, out: Path) -> int | None:
        """The exit code of the last training that was started here; None while it goes on or without one."""
        child = self._children.get(out)
        return None if child is None else child.poll()

    def failure(self, out: Path) -> str:
        """The reason why the last training that was started here ended; empty when it is well."""
        code = self.exit_code(out) or 0
        return last_line(out, LOG) if code > 0 and code != STOP_CODE else ""

    def start(self, out: Path, arguments: Sequence[str]) -> None:
        """Start `shoestring` with arguments that train in `out`.

        Raises RequestError when a training goes on there, StorageError.
        """
        if holder(out) is not None or (out in self._children and self._children[out].poll() is None):
            raise RequestError("conflict", f"a training is going on in {out.name} already")
        command = [sys.executable, "-m", "shoestring.cli.main", *arguments]
        if self._memory is not None:
            self._memory.set_yields(True)
        elif nice := shutil.which("nice"):
            command = [nice, "-n", "10", *command]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            out.mkdir(parents=True, exist_ok=True)
            log = os.open(out / LOG, flags, 0o644)
        except OSError as error:
            raise StorageError(f"cannot write {out / LOG}: {error.strerror}") from None
        try:
            self._children[out] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        finally:
            os.close(log)

    def stop(self, out: Path) -> None:
        """Ask a training to save its state and end. Raises RequestError when none goes on."""
        child, pid = self._children.get(out), holder(out)
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGTERM)
        elif pid is not None:
            try:
                os.kill(pid, signal.SIGTERM)
            except OSError as error:
                raise RequestError("permission", f"cannot stop process {pid}: {error.strerror}") from None
        else:
            raise RequestError("conflict", f"no training is going on in {out.name}")

    def resume(self, out: Path) -> None:
        """Start a training again where it stopped. Raises RequestError for a folder without its recipe."""
        self.start(out, resume_arguments(out))

    async def watch(self) -> None:
        """Let the models yield no more when the last training has ended."""
        while True:
            await asyncio.sleep(PULSE_S)
            if self._memory is not None and self._memory.yields and not self.is_training:
                self._memory.set_yields(False)

    async def close(self) -> None:
        """Ask all trainings that were started here to save their state, and wait for their end."""
        children = [child for child in self._children.values() if child.poll() is None]
        for child in children:
            child.send_signal(signal.SIGTERM)
        while any(child.poll() is None for child in children):
            await asyncio.sleep(0.05)


def resume_arguments(out: Path) -> list[str]:
    """The arguments of `shoestring` by which a run goes on. Raises RequestError."""
    config = read_toml(out, "config.toml")
    verb = verb_of(config)
    if verb is None:
        raise RequestError("invalid", f"{out.name} has no recipe by which it could go on")
    until = read_json(out, "process.json").get("until")
    entries = config.get("stages")
    stages = entries if isinstance(entries, list) else []
    names = [stage.get("name") for stage in stages if isinstance(stage, dict)]
    more = ["--until", until] if isinstance(until, str) and is_name(until) and until in names else []
    return [verb, "--resume", "--out", str(out), *more]
