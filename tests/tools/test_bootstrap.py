"""The door: its verbs, its decisions about torch, and its sentences when something is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(monkeypatch):
    """tools/bootstrap.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import bootstrap

    return bootstrap


class FakeVenv:
    """Records what would be installed; `broken` requirements fail."""

    def __init__(self, root, *, local=False, broken=()):
        self.root, self.local, self.broken = root, local, broken
        self.installed = []

    def can_install(self, *arguments):
        return self.local

    def pip(self, *arguments):
        from environment import Failure

        if arguments[-1] in self.broken:
            raise Failure("pip could not install it")
        self.installed.append(arguments[-1])


@pytest.fixture
def fake(tmp_path):
    return lambda **options: FakeVenv(tmp_path, **options)


@pytest.fixture
def cpu(tool):
    return tool.torch_choice.choose({}, None, "linux")


@pytest.fixture(autouse=True)
def nobody_to_ask(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "platform", "linux")


def test_a_wheel_that_is_here_comes_first(tool, fake, cpu):
    venv = fake(local=True)
    tool.install_torch(venv, cpu)
    assert venv.installed == ["torch==2.13.0"]


def test_otherwise_the_cpu_build_by_name(tool, fake, cpu):
    venv = fake()
    tool.install_torch(venv, cpu)
    assert venv.installed == ["torch==2.13.0+cpu"]


def test_without_it_gigabytes_need_consent(tool, fake, cpu, monkeypatch):
    venv = fake(broken={"torch==2.13.0+cpu"})
    with pytest.raises(tool.Failure, match="SHOESTRING_ALLOW_CUDA_WHEEL=1") as caught:
        tool.install_torch(venv, cpu)
    assert caught.value.code == 4
    assert venv.installed == []
    monkeypatch.setenv("SHOESTRING_ALLOW_CUDA_WHEEL", "1")
    tool.install_torch(venv, cpu)
    assert venv.installed == ["torch==2.13.0"]


def test_a_gpu_that_nobody_agreed_to_fill_gets_the_cpu_build_aloud(tool, fake, capsys):
    venv = fake()
    tool.install_torch(venv, tool.torch_choice.choose({}, 580, "linux"))
    assert venv.installed == ["torch==2.13.0+cpu"]
    assert "SHOESTRING_TORCH=cu130" in capsys.readouterr().out


def test_a_gpu_build_that_fails_is_not_replaced_by_another(tool, fake):
    venv = fake(broken={"torch==2.13.0+cu126"})
    with pytest.raises(tool.Failure):
        tool.install_torch(venv, tool.torch_choice.choose({"SHOESTRING_TORCH": "cu126"}, 550, "linux"))
    assert venv.installed == []


def test_skip_keeps_the_torch_that_is_outside(tool, fake):
    venv = fake()
    venv.run_code = lambda *code: subprocess.CompletedProcess(code, 0, stdout="2.13.0+cu130\n", stderr="")
    tool.install_torch(venv, tool.torch_choice.choose({"SHOESTRING_TORCH": "skip"}, None, "linux"))
    assert venv.installed == []
    assert tool.outer_torch(venv) == "torch===2.13.0+cu130"


def test_skip_without_torch_outside_is_one_sentence(tool, fake):
    venv = fake()
    venv.run_code = lambda *code: subprocess.CompletedProcess(code, 1, stdout="", stderr="no")
    with pytest.raises(tool.Failure, match="has no torch") as caught:
        tool.outer_torch(venv)
    assert caught.value.code == 4


def test_a_module_that_does_not_load_is_named(tool, fake):
    venv = fake()
    venv.run_code = lambda code, *words: subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True
    )
    tool.check_imports(venv, ["json"])
    with pytest.raises(tool.Failure, match="no_such_module was installed but does not load: ModuleNotFound"):
        tool.check_imports(venv, ["json", "no_such_module"])


def test_a_full_disk_is_said_before_anything_is_written(tool, tmp_path, monkeypatch):
    from environment import Venv

    monkeypatch.setattr(tool, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(tool.Failure, match="GB are free under"):
        tool.install(Venv(tmp_path), "base")
    assert not (tmp_path / ".venv").exists()


def test_every_verb_of_the_makefile_exists(tool):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (verbs,) = [line.split(":")[1].split() for line in makefile.splitlines() if line.startswith(".PHONY")]
    assert verbs == list(tool.VERBS)


def test_help_lists_the_verbs_and_an_unknown_one_is_a_usage_error(tool, capsys):
    assert tool.main(["help"]) == 0
    assert tool.main(["frobnicate"]) == 2
    out = capsys.readouterr().out
    assert all(name in out for name in tool.VERBS)


def test_an_unknown_torch_build_is_a_usage_error(tool, capsys, monkeypatch):
    monkeypatch.setenv("SHOESTRING_TORCH", "gpu")
    monkeypatch.setattr(tool, "verb_setup", None)
    monkeypatch.setitem(
        tool.VERBS, "setup", lambda arguments: tool.torch_choice.choose(tool.os.environ, None, "linux")
    )
    assert tool.main(["setup"]) == 2
    assert "SHOESTRING_TORCH='gpu'" in capsys.readouterr().err


def test_a_failure_is_one_line_and_its_exit_code(tool, capsys, monkeypatch):
    def fail(arguments):
        raise tool.Failure("no luck", 4)

    monkeypatch.setitem(tool.VERBS, "setup", fail)
    assert tool.main(["setup"]) == 4
    assert capsys.readouterr().err == "shoestring: no luck\n"


def test_the_exit_status_of_the_program_passes_through(tool):
    assert tool.run(sys.executable, "-c", "raise SystemExit(75)") == 75
    assert tool.run(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)") == 137


def test_clean_keeps_runs(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    for name in (".venv/bin", "runs/demo", "shoestring/__pycache__", ".mypy_cache"):
        (tmp_path / name).mkdir(parents=True)
    assert tool.main(["clean"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "shoestring"]
    assert not list((tmp_path / "shoestring").iterdir())
