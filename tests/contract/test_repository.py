"""The checkout as a whole: mirrored tests, nothing of one machine, a command line that starts at once."""

import subprocess
import sys
from pathlib import Path

import pytest

OWN_FOLDERS = (
    "clients",
    "compat",
    "contract",
    "parity",
    "golden",
    "e2e",
    "page",
)  # tests of more than one module
# Written in two halves so that this file does not contain them.
MACHINE_PATHS = [
    "/wo" + "rk/",
    "/ro" + "ot/",
    "/tmp/" + "venv",
    "/opt/" + "wheels",
    "/opt/" + "pypi",
    "/home/" + "user",
]
REGISTRY_HOSTS = [
    "py" + "pi.org",
    "python" + "hosted",
    "npm" + "js.org",
    "deb." + "debian",
    "proxy.go" + "lang",
]
TORCH_INDEX = "download.py" + "torch.org"  # torch's CPU build is nowhere else; one file knows the address
TEXT = {".py", ".md", ".toml", ".txt", ".cpp", ".h", ".cu", ".jinja", ".json", ".yml", ".cfg", ".svg", ""}
HEAVY = (
    "torch",
    "transformers",
    "matplotlib",
    "pyarrow",
    "pydantic",
    "tokenizers",
    "numpy",
    "huggingface_hub",
)


@pytest.fixture(scope="module")
def files(root) -> list[Path]:
    """Files that git keeps or would keep; in an unpacked archive, all but hidden folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        process = subprocess.run(command, cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        process = None
    if process and process.returncode == 0:
        return [root / name for name in process.stdout.split("\0") if name and (root / name).is_file()]
    inside = (path for path in root.rglob("*") if path.is_file())
    return [path for path in inside if not any(part.startswith(".") for part in path.relative_to(root).parts)]


def home_of(test: Path) -> list[str]:
    """Modules that tests/model/test_moe_gates.py may be about: shoestring/model/moe_gates.py, .../moe.py."""
    folder, words = test.parent.relative_to("tests"), test.stem.removeprefix("test_").split("_")
    base = folder if folder.parts[:1] in (("bench",), ("tools",)) else Path("shoestring") / folder
    return [str(base / ("_".join(words[:count]) + ".py")) for count in range(len(words), 0, -1)]


def test_every_test_file_is_about_a_module(root):
    tests = [path.relative_to(root) for path in (root / "tests").rglob("test_*.py")]
    mirrors = [path for path in tests if path.parts[1] not in OWN_FOLDERS]
    assert not [str(t) for t in mirrors if not any((root / home).is_file() for home in home_of(t))]


def test_the_mirror_knows_its_modules():
    assert home_of(Path("tests/model/test_moe_gates.py")) == [
        "shoestring/model/moe_gates.py",
        "shoestring/model/moe.py",
    ]
    assert home_of(Path("tests/model/hf/test_weights.py")) == ["shoestring/model/hf/weights.py"]
    assert home_of(Path("tests/tools/test_docs.py")) == ["tools/docs.py"]
    assert home_of(Path("tests/test_config.py")) == ["shoestring/config.py"]


def test_tests_are_not_packages(root):
    assert not list((root / "tests").rglob("__init__.py"))


def test_nothing_is_called_utils(package):
    names = {"utils", "util", "helpers", "misc", "common"}
    assert not [str(s) for s in package if names & {part.removesuffix(".py") for part in s.path.parts}]


def test_every_folder_says_what_it_is(root):
    folders = {path.parent for path in (root / "shoestring").rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_no_file_knows_a_machine_or_a_registry(files):
    words = []
    for path in files:
        if path.suffix in TEXT:
            text = path.read_text(encoding="utf-8", errors="replace")
            words += [f"{path.name}: {word}" for word in MACHINE_PATHS + REGISTRY_HOSTS if word in text]
    assert not words


def test_only_the_bootstrap_knows_where_torch_lives(files, root):
    users = [
        p
        for p in files
        if p.suffix in TEXT and TORCH_INDEX in p.read_text(encoding="utf-8", errors="replace")
    ]
    assert {str(path.relative_to(root)) for path in users} <= {"tools/torch_choice.py"}


def test_no_generated_or_binary_file_is_kept(files, root):
    suffixes = {".pyc", ".so", ".o", ".pt", ".bin", ".safetensors", ".whl"}
    mini = root / "shoestring" / "embedded" / "mini" / "model.safetensors"  # for `shoestring run`
    assert [path for path in files if path.suffix in suffixes] in ([], [mini])


def test_every_dependency_is_pinned(root):
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {line.split("==")[0] for line in lines if line and not line.startswith("#")}
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    names = {line.split(">")[0].split("[")[0] for line in project["dependencies"] + extras}
    assert names - pins == {"shoestring-llm"}
    assert all("==" in line for line in lines if line and not line.startswith("#"))


def test_help_starts_without_heavy_libraries(root):
    code = (
        "import sys; sys.argv = ['shoestring', '--help']\n"
        "from shoestring.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    code = stop.code\n"
        "else:\n    code = 0\n"
        f"print('HEAVY', code or 0, [name for name in {HEAVY} if name in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip().splitlines()[-1] == "HEAVY 0 []"
    assert "Usage" in process.stdout
