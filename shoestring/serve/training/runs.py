"""The training runs of a service: those in its folder, as they are watched, and the trainings it starts."""

from shoestring.serve.backends.lazy import ModelMemory
from shoestring.serve.training.control import RunControl
from shoestring.serve.training.folder import RunsFolder
from shoestring.serve.training.run import WatchedRun

MAX_WATCHED = 20


class Runs:
    """The runs in a folder."""

    def __init__(self, folder: RunsFolder, memory: ModelMemory | None = None) -> None:
        """The models in `memory` yield to a training that is started here; without it, it yields to them."""
        self.folder, self.control = folder, RunControl(memory)
        self._runs: dict[str, WatchedRun] = {}

    def watched(self, name: str) -> WatchedRun:
        """A run to watch. Raises RequestError when there is none."""
        folder = self.folder.run(name)
        if name not in self._runs and len(self._runs) >= MAX_WATCHED:
            del self._runs[next(iter(self._runs))]
        return self._runs.setdefault(name, WatchedRun(folder))
