"""Build the chat page: ui/ becomes shoestring/serve/pages/app, which git keeps so that nobody needs Node.

    python3 tools/page.py            # builds; needs Node and npm
    python3 tools/page.py --check    # exits with 1 when what git keeps is not what ui/ makes

The file `stamp` in the built folder is the SHA-256 of the sources it was made from, so that a test without
Node sees a page that is out of date.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE, BUILT = ROOT / "ui", ROOT / "shoestring" / "serve" / "pages" / "app"
STAMP = "stamp"


def source_files() -> list[Path]:
    """The files that the page is made from."""
    folders = ("node_modules", "dist")
    paths = (path for path in SOURCE.rglob("*") if path.is_file())
    return sorted(path for path in paths if not set(folders) & set(path.relative_to(SOURCE).parts))


def stamp() -> str:
    """The SHA-256 of the sources, with their names."""
    digest = hashlib.sha256()
    for path in source_files():
        name = path.relative_to(SOURCE).as_posix()
        digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def build(folder: Path) -> None:
    """Build the page into a folder. Raises CalledProcessError."""
    if not (SOURCE / "node_modules").is_dir():
        # Not `npm ci`: it fails where an optional part for another system cannot be had.
        command = ["npm", "install", "--no-save", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=SOURCE, check=True)
    command = ["npx", "vite", "build", "--logLevel", "warn", "--outDir", str(folder), "--emptyOutDir"]
    subprocess.run(command, cwd=SOURCE, check=True)
    (folder / STAMP).write_text(stamp() + "\n")


def differences(folder: Path) -> list[str]:
    """Names of files that differ between a fresh build and what git keeps."""
    names = {path.name for place in (folder, BUILT) for path in place.iterdir()}
    return sorted(name for name in names if _content(folder / name) != _content(BUILT / name))


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def main() -> int:
    """Build, or compare; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if not arguments.check:
        build(BUILT)
        return 0
    with tempfile.TemporaryDirectory() as name:
        build(Path(name))
        wrong = differences(Path(name))
    sys.stdout.write(f"{', '.join(wrong)}: run python3 tools/page.py\n" if wrong else "the page is fresh\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
