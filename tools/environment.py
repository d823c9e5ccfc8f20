"""The virtual environment .venv: create it, check it, install into it, replace it when it is not whole."""

from __future__ import annotations  # so that an older Python gets far enough to look for a newer one

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OLDEST = (3, 11)
PYTHONS = ("python3.13", "python3.12", "python3.11", "python3", "python")
OUTSIDE = {  # settings that would make pip or Python look or write outside .venv
    *("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__"),
    *("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER"),
}


class Failure(Exception):
    """One sentence for the user; `code` is the process's exit status."""

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code


class Venv:
    """The files of .venv, the checks that it is whole, and the pins that it was installed from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".venv"
        windows = os.name == "nt"
        self.scripts = self.folder / ("Scripts" if windows else "bin")
        self.python = self.scripts / ("python.exe" if windows else "python")
        self.shoestring = self.scripts / ("shoestring.exe" if windows else "shoestring")
        self.libraries = "Lib/site-packages" if windows else "lib/python*/site-packages"
        self.log = self.folder / "install.log"
        self.pins = self.folder / "constraints.txt"  # the checkout's, see pin()
        self.origin = self.folder / ".origin"
        self.unfinished = self.folder / ".unfinished"  # exists while pip is writing

    def trustworthy(self) -> bool:
        """False after an interrupted set-up, a move, or the loss of a package or its Python."""
        if self.unfinished.exists() or not self.python.exists() or not self.origin.is_file():
            return False
        if self.origin.read_text(encoding="utf-8") != self.identity():
            return False
        present = set(self.packages())
        stamps = [json.loads(path.read_text(encoding="utf-8")) for path in self.folder.glob(".stamp-*")]
        return all(present.issuperset(stamp) for stamp in stamps)

    def identity(self) -> str:
        """Facts that force a new .venv when they change: the checkout's path, the use of an outer torch."""
        return json.dumps({"root": str(self.root), "torch_from_outside": wants_outer_torch()})

    def stamp(self, kind: str) -> Path:
        """The file which states that `kind` was installed from exactly these pins, for this Python."""
        digest = hashlib.sha256(os.environ.get("SHOESTRING_TORCH", "").encode())
        for path in (self.root / "pyproject.toml", self.root / "constraints.txt", self.folder / "pyvenv.cfg"):
            digest.update(path.read_bytes())
        return self.folder / f".stamp-{kind}-{digest.hexdigest()[:16]}"

    def packages(self) -> list[str]:
        """Names at the top of site-packages, without versions: a user may upgrade one by hand."""
        names = [name for folder in self.folder.glob(self.libraries) for name in os.listdir(folder)]
        return sorted(name for name in names if not name.endswith((".dist-info", "__pycache__")))

    def ready(self, kind: str) -> bool:
        """Return whether `kind` is installed as pinned and nothing is missing; takes milliseconds."""
        return self.trustworthy() and self.stamp(kind).is_file() and self.shoestring.exists()

    def finish(self, kind: str) -> None:
        """Note that `kind`, and so base, is installed, instead of what earlier pins had installed."""
        for old in self.folder.glob(".stamp-*"):
            old.unlink()
        for name in {"base", kind}:
            self.stamp(name).write_text(json.dumps(self.packages()), encoding="utf-8")
        self.unfinished.unlink()

    def create(self) -> None:
        """Create a new, empty .venv with the first Python that is recent enough."""
        shutil.rmtree(self.folder, ignore_errors=True)
        outer = ["--system-site-packages"] if wants_outer_torch() else []
        command = [find_python(), "-m", "venv", *outer, str(self.folder)]
        process = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
        if process.returncode:
            shutil.rmtree(self.folder, ignore_errors=True)
            message = (process.stderr + process.stdout).strip()
            if "ensurepip" in message or "No module named" in message:
                raise Failure("this Python cannot make virtual environments; `apt install python3-venv`", 4)
            raise Failure(f"`{' '.join(command)}` failed: {message[-500:]}")
        self.origin.write_text(self.identity(), encoding="utf-8")

    def pin(self, torch: str | None = None) -> None:
        """Write the pins for pip: constraints.txt, with `torch` in place of its line on torch."""
        lines = (self.root / "constraints.txt").read_text(encoding="utf-8").splitlines()
        others = [line for line in lines if not line.startswith("torch==")]
        self.pins.write_text("\n".join([*others, *([torch] if torch else []), ""]), encoding="utf-8")

    def pip(self, *arguments: str) -> None:
        """Run `pip install` with the pins, its output in the log; raises Failure with the log's end."""
        options = ["--progress-bar", "off", "-c", str(self.pins)]
        command = [str(self.python), "-m", "pip", "install", *options, *arguments]
        with self.log.open("a", encoding="utf-8") as log:
            print("$", *command, file=log, flush=True)
            process = subprocess.run(command, cwd=self.root, stdout=log, stderr=log, env=clean_environment())
        if process.returncode:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            tail = "\n".join(f"    {line}" for line in lines[-12:])
            raise Failure(f"pip could not install {arguments[-1]} (its whole output: {self.log}):\n{tail}")

    def can_install(self, *arguments: str) -> bool:
        """Return whether `pip install` would succeed; nothing is installed."""
        command = [str(self.python), "-m", "pip", "install", "--quiet", "--dry-run", *arguments]
        process = subprocess.run(command, cwd=self.root, capture_output=True, env=clean_environment())
        return process.returncode == 0

    def run_code(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a few lines of Python inside .venv and capture their output."""
        command = [str(self.python), "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=clean_environment())

    def disk_bytes(self) -> int:
        return sum(path.lstat().st_size for path in self.folder.rglob("*"))


def find_python() -> str:
    """The Python for .venv: the one that runs this file if it is recent enough, else one on PATH."""
    if sys.version_info >= OLDEST:
        # inside a virtual environment, the Python behind it: .venv itself may be about to be replaced
        return str(getattr(sys, "_base_executable", sys.executable))
    probe = f"import sys; sys.exit(sys.version_info < {OLDEST})"
    for name in PYTHONS:
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", probe], capture_output=True).returncode == 0:
            return path
    raise Failure("Python 3.11 or newer is needed; on Debian or Ubuntu `apt install python3 python3-venv`", 4)


def wants_outer_torch() -> bool:
    return os.environ.get("SHOESTRING_TORCH", "").strip().lower() == "skip"


def clean_environment() -> dict[str, str]:
    """This process's environment without OUTSIDE; pip's mirrors, certificates and wheel folders stay."""
    variables = {name: value for name, value in os.environ.items() if name not in OUTSIDE}
    return {**variables, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Lock `path` while .venv changes: `make demo` beside `make test` waits for its turn."""
    with path.open("w") as file:
        try:
            import fcntl
        except ImportError:
            yield  # Windows has no such lock; the user avoids two set-ups at once
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
