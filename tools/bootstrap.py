"""Make .venv and run a command in it: `python3 tools/bootstrap.py demo` needs only Python with venv.

Uses the standard library only. The Makefile calls this file; without make, call it yourself. Everything is
installed in .venv. A later call sees that it is complete and starts at once; an interrupted one starts anew.

SHOESTRING_TORCH               auto (default), cpu, cu130, cu126, rocm, or skip: use this Python's own torch
SHOESTRING_ALLOW_CUDA_WHEEL=1  agree to gigabytes of CUDA libraries when the program cannot ask
"""

from __future__ import annotations  # so that an older Python gets far enough to look for a newer one

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch_choice
from environment import OLDEST, Failure, Venv, find_python, lock

ROOT = Path(__file__).resolve().parent.parent
NEEDED_BYTES = 2_500_000_000  # .venv with the test tools takes about 1.5 GB; pip needs room to unpack
EXTRAS = {"base": "plots,serve,gguf", "dev": "dev"}  # extras of pyproject.toml that each set-up installs
BASE_MODULES = ["torch", "numpy", "tokenizers", "safetensors", "pydantic", "matplotlib", "fastapi"]
DEV_MODULES = ["transformers", "pyarrow", "pytest", "hypothesis"]
PREPARE = """
import compileall
import shoestring
from shoestring.kernels.cpu_build import library

compileall.compile_dir(shoestring.__path__[0], quiet=2)
library()  # without a compiler slower ones are used
"""
MOST_WORKERS = 4  # processes that test at once: each has PyTorch and models in memory
CACHES = [".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis", "build", "dist"]


def setup(kind: str) -> Venv:
    """Install what `kind` ("base" or "dev") needs into .venv; returns at once when it is there."""
    venv = Venv(ROOT)
    if venv.ready(kind):
        return venv
    with lock(ROOT / ".venv.lock"):
        if not venv.ready(kind):  # another process may have installed it meanwhile
            install(venv, kind)
    return venv


def install(venv: Venv, kind: str) -> None:
    """Run the steps, a line each; a failure leaves `.unfinished` behind, and the next call starts anew."""
    start = time.monotonic()
    if shutil.disk_usage(venv.root).free < NEEDED_BYTES:
        raise Failure(f"less than {NEEDED_BYTES / 1e9:.1f} GB are free under {venv.root}; make room first")
    choice = torch_choice.choose(os.environ, torch_choice.nvidia_driver(), sys.platform)
    print(f"setting up .venv, {kind} packages (log: .venv/{venv.log.name})")
    if not venv.trustworthy():
        with step("virtual environment"):
            venv.create()
    venv.unfinished.touch()
    venv.pin()
    install_torch(venv, choice)
    venv.pin(torch=outer_torch(venv) if choice.build == "skip" else torch_choice.ANY)
    with step("shoestring and its libraries"):
        venv.pip("-e", f".[{EXTRAS[kind]}]")
    with step("checking imports"):
        check_imports(venv, BASE_MODULES + (DEV_MODULES if kind == "dev" else []))
    with step("kernels for this processor, and bytecode"):
        venv.run_code(PREPARE)  # so that a first start need not wait for them
    venv.finish(kind)
    print(f"  ready: {venv.disk_bytes() / 1e6:,.0f} MB on disk, {time.monotonic() - start:.0f} s")
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++")):
        print("  note: no C++ compiler, so slower kernels are used; `apt install g++` brings one")


def install_torch(venv: Venv, choice: torch_choice.Choice) -> None:
    """Install the chosen build of torch; gigabytes only after the user agreed."""
    if choice.build == "skip":
        return None
    if choice.local_first and venv.can_install("--no-deps", "--no-index", torch_choice.ANY):
        with step("torch (already on this machine)"):
            return venv.pip(torch_choice.ANY)
    question = ask if sys.stdin and sys.stdin.isatty() else None
    if not choice.has_consent and not torch_choice.may_download(os.environ, question):
        print(f"  note: for the GPU here, SHOESTRING_TORCH={choice.build} ({choice.size})")
        choice = torch_choice.build("cpu", sys.platform)
    try:
        with step(f"torch, {choice.build} build ({choice.size})"):
            venv.pip(*index_options(choice), choice.requirement)
    except Failure as failure:
        if choice.build != "cpu" or sys.platform != "linux":
            raise
        if not torch_choice.may_download(os.environ, question):
            raise Failure(f"{failure}\n{torch_choice.REFUSAL}", 4) from None
        with step(f"torch, CUDA build ({torch_choice.GPU_SIZE})"):
            venv.pip(torch_choice.ANY)
    return None


def index_options(choice: torch_choice.Choice) -> list[str]:
    """Options of pip for the build's own index; a host that does not answer costs seconds, not minutes."""
    return ["--retries", "1", "--timeout", "15", "--extra-index-url", choice.index] if choice.index else []


def outer_torch(venv: Venv) -> str:
    """The torch outside .venv as an exact requirement, so that pip does not fetch another."""
    process = venv.run_code("import importlib.metadata as m; print(m.version('torch'))")
    if process.returncode:
        raise Failure(f"SHOESTRING_TORCH=skip, but {find_python()} has no torch; unset it or install one", 4)
    return f"torch==={process.stdout.strip()}"


def check_imports(venv: Venv, modules: list[str]) -> None:
    """Import each module once: a broken wheel fails here and not in a user's run."""
    code = "import sys\nfor name in sys.argv[1:]: print(name, flush=True); __import__(name)"
    process = venv.run_code(code, *modules)
    if process.returncode:
        last = (process.stdout.split() or ["Python"])[-1]
        reason = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise Failure(f"{last} was installed but does not load: {reason}", 4)


def ask(question: str) -> bool:
    return input(f"  {question} [y/N] ").strip().lower() in ("y", "yes")


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print the name of a step when it begins, and its seconds when it ends."""
    start = time.monotonic()
    print(f"  {name} ... ", end="", flush=True)
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - start:.0f} s", flush=True)


def run(*command: str | Path) -> int:
    """Run a program to its end; Ctrl-C reaches it too, and it gets the time to save its work."""
    with subprocess.Popen([str(part) for part in command], cwd=ROOT) as process:
        while True:
            try:
                status = process.wait()
            except KeyboardInterrupt:
                continue
            return status if status >= 0 else 128 - status  # as a shell reports death by a signal


def verb_setup(arguments: list[str]) -> int:
    """make .venv (with the argument `dev`: the test tools too)"""
    setup("dev" if "dev" in arguments else "base")
    return 0


def verb_demo(arguments: list[str]) -> int:
    """open a chat page and train R1-Zero from random weights beside it (--train-only: without the page)"""
    return run(setup("base").shoestring, "demo", *arguments)


def verb_serve(arguments: list[str]) -> int:
    """open the chat page alone, with mini or the models that are named"""
    return run(setup("base").shoestring, "serve", *arguments)


def verb_test(arguments: list[str]) -> int:
    """run the tests, except the slow ones; all of them on every core (--shuffle: in another order)"""
    is_all = not arguments or arguments[0] == "--shuffle"
    workers = ["-n", str(min(os.cpu_count() or 1, MOST_WORKERS)), "--dist", "loadfile"] if is_all else []
    return run(setup("dev").python, "-m", "pytest", *workers, *arguments)


def verb_check(arguments: list[str]) -> int:
    """run ruff and mypy, and check that the generated pages are fresh"""
    python = setup("dev").python
    checks = {
        "ruff check": ["-m", "ruff", "check", "."],
        "ruff format": ["-m", "ruff", "format", "--check", "."],
        "mypy": ["-m", "mypy"],
        "docs": ["tools/docs.py", "--check"],
    }
    failures = [name for name, command in checks.items() if run(python, *command)]
    print("check: " + ("failed: " + ", ".join(failures) if failures else "all clean"))
    return int(bool(failures))


def verb_lint(arguments: list[str]) -> int:
    """run ruff only, which is quick"""
    python = setup("dev").python
    return run(python, "-m", "ruff", "check", ".") or run(python, "-m", "ruff", "format", "--check", ".")


def verb_fix(arguments: list[str]) -> int:
    """repair and format the code with ruff"""
    python = setup("dev").python
    return run(python, "-m", "ruff", "check", "--fix", ".") or run(python, "-m", "ruff", "format", ".")


def verb_docs(arguments: list[str]) -> int:
    """write the pages of docs/ that are made from the code"""
    return run(setup("base").python, "tools/docs.py", *arguments)


def verb_bench(arguments: list[str]) -> int:
    """run every bench/*.py, one after another"""
    python = setup("dev").python
    return max((run(python, path, *arguments) for path in sorted((ROOT / "bench").glob("*.py"))), default=0)


def verb_clean(arguments: list[str]) -> int:
    """remove .venv and every cache; runs/ stays"""
    (ROOT / ".venv.lock").unlink(missing_ok=True)
    for folder in [ROOT / ".venv", *(ROOT / name for name in CACHES), *ROOT.rglob("__pycache__")]:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {
    "setup": verb_setup,
    "demo": verb_demo,
    "serve": verb_serve,
    "test": verb_test,
    "check": verb_check,
    "lint": verb_lint,
    "fix": verb_fix,
    "docs": verb_docs,
    "bench": verb_bench,
    "clean": verb_clean,
}


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit status."""
    verb = arguments[0] if arguments else "help"
    if verb not in VERBS:
        print("usage: python3 tools/bootstrap.py VERB [ARGUMENTS]\n")
        print("\n".join(f"  {name:6} {function.__doc__}" for name, function in VERBS.items()))
        return 0 if verb in ("help", "-h", "--help") else 2
    try:
        if sys.version_info < OLDEST:
            return run(find_python(), __file__, *arguments)
        return VERBS[verb](arguments[1:])
    except Failure as failure:
        print(f"shoestring: {failure}", file=sys.stderr)
        return failure.code
    except torch_choice.UnknownBuild as error:
        print(f"shoestring: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nshoestring: interrupted; the next call starts the set-up anew", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
