"""Q4_K and Q6_K, which llama.cpp's own `llama-quantize` writes from a file in full precision."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from shoestring.durable import storage_errors, sync
from shoestring.errors import ConfigError, MissingDependencyError

TOOL = "llama-quantize"
K_QUANTS = {"q4_k": "Q4_K", "q6_k": "Q6_K"}
"""The tool's names. Q4_K mixes in Q6_K where errors matter most; rows of other sizes get other types."""


def write_k_quants(path: Path, type: str, write: Callable[[Path], None]) -> None:
    """Write a GGUF file of a type in K_QUANTS; `write` writes it in full precision to the path that it gets.

    The file appears only when it is complete. Raises MissingDependencyError without the tool, ConfigError
    when the tool fails, StorageError.
    """
    tool = shutil.which(TOOL)
    if tool is None:
        raise MissingDependencyError(
            f"GGUF type {type} is written by llama.cpp's {TOOL}, which is not on the PATH; "
            "install llama.cpp, or take q8_0 or q4_0"
        )
    with storage_errors(path, 0):
        path.parent.mkdir(parents=True, exist_ok=True)
    with (
        storage_errors(path, 0),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder,
    ):
        source, result = Path(folder) / "full.gguf", Path(folder) / "result.gguf"
        write(source)
        done = subprocess.run(
            [tool, str(source), str(result), K_QUANTS[type]],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode or not result.is_file():
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            reason = lines[-1].strip()[:200] if lines else f"it ended with {done.returncode}"
            raise ConfigError(f"{TOOL} did not write {path.name}: {reason}")
        sync(result)
        result.replace(path)
