""".venv is trusted only when it is whole, ours and from the present pins."""

import json
import sys
from pathlib import Path

import pytest

sys_path = str(Path(__file__).resolve().parents[2] / "tools")


@pytest.fixture
def tool(monkeypatch):
    """tools/environment.py as a module."""
    monkeypatch.syspath_prepend(sys_path)
    import environment

    return environment


@pytest.fixture
def venv(tool, tmp_path):
    """A checkout whose .venv looks finished; nothing in it runs."""
    (tmp_path / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n", encoding="utf-8")
    made = tool.Venv(tmp_path)
    libraries = Path(made.folder, made.libraries.replace("*", "3.11"))
    for name in ("torch", "numpy", "torch-2.13.0.dist-info"):
        (libraries / name).mkdir(parents=True)
    made.scripts.mkdir()
    made.python.touch()
    made.shoestring.touch()
    (made.folder / "pyvenv.cfg").write_text("version = 3.11.7\n", encoding="utf-8")
    made.origin.write_text(made.identity(), encoding="utf-8")
    made.unfinished.touch()
    made.finish("dev")
    return made


def test_a_finished_one_is_ready_for_both(venv):
    assert venv.ready("dev")
    assert venv.ready("base")


def test_base_does_not_stand_for_dev(venv):
    venv.unfinished.touch()
    venv.finish("base")
    assert venv.ready("base")
    assert not venv.ready("dev")


def test_an_interrupted_one_is_not_trusted(venv):
    venv.unfinished.touch()
    assert not venv.trustworthy()


@pytest.mark.parametrize("lost", ["python", "origin"])
def test_a_half_made_one_is_not_trusted(venv, lost):
    getattr(venv, lost).unlink()
    assert not venv.trustworthy()


def test_a_removed_package_is_noticed_and_an_upgraded_one_is_not(venv):
    (libraries,) = venv.folder.glob(venv.libraries)
    (libraries / "torch-2.13.0.dist-info").rename(libraries / "torch-2.14.0.dist-info")
    assert venv.ready("dev")
    (libraries / "numpy").rmdir()
    assert not venv.trustworthy()


def test_a_moved_checkout_is_noticed(tool, venv, tmp_path):
    moved = tmp_path.rename(tmp_path.parent / "moved")
    assert not tool.Venv(moved).trustworthy()


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_new_pins_are_installed_into_what_is_there(venv, name):
    (venv.root / name).write_text("numpy==2.4.6\n", encoding="utf-8")
    assert not venv.ready("base")
    assert venv.trustworthy()


def test_another_wish_for_torch_is_noticed(venv, monkeypatch):
    monkeypatch.setenv("SHOESTRING_TORCH", "cu130")
    assert not venv.ready("base")
    monkeypatch.setenv("SHOESTRING_TORCH", "skip")
    assert not venv.trustworthy()


def test_the_stamp_names_what_must_stay(venv):
    assert json.loads(venv.stamp("dev").read_text(encoding="utf-8")) == ["numpy", "torch"]


def test_pips_mirrors_pass_through_and_its_other_targets_do_not(tool, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels")
    monkeypatch.setenv("PIP_TARGET", "elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    kept = tool.clean_environment()
    assert kept["PIP_FIND_LINKS"] == "wheels"
    assert kept["PIP_USER"] == "0"
    assert not {"PIP_TARGET", "PYTHONPATH"} & set(kept)


def test_the_pins_with_another_torch(venv):
    (venv.root / "constraints.txt").write_text("numpy==2.4.6\ntorch==2.13.0\n", encoding="utf-8")
    venv.pin()
    assert venv.pins.read_text(encoding="utf-8") == "numpy==2.4.6\n"
    venv.pin(torch="torch===2.14.0+cu130")
    assert venv.pins.read_text(encoding="utf-8") == "numpy==2.4.6\ntorch===2.14.0+cu130\n"


def test_pips_failure_ends_with_its_own_words(tool, venv):
    venv.python = sys.executable
    with pytest.raises(tool.Failure, match="could not install --no-such-option") as caught:
        venv.pip("--no-such-option")
    assert "no such option" in str(caught.value)
    assert str(venv.log) in str(caught.value)


def test_an_old_python_looks_for_a_newer_one(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(tool, "OLDEST", (99, 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(tool.Failure, match=r"Python 3\.11 or newer") as caught:
        tool.find_python()
    assert caught.value.code == 4


def test_a_python_without_ensurepip_is_named(tool, venv, monkeypatch, tmp_path):
    fake = tmp_path / "fake-python"
    fake.write_text("#!/bin/sh\necho 'ensurepip is not available' >&2\nexit 1\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setattr(tool, "find_python", lambda: str(fake))
    with pytest.raises(tool.Failure, match="python3-venv") as caught:
        venv.create()
    assert caught.value.code == 4
    assert not venv.folder.exists()


def test_only_one_process_at_a_time_changes_it(tool, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    with (
        tool.lock(tmp_path / "lock"),
        (tmp_path / "lock").open("w") as second,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
