"""The choice of a torch build: a table of machines and wishes."""

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def tool():
    """tools/torch_choice.py as a module."""
    path = Path(__file__).resolve().parents[2] / "tools" / "torch_choice.py"
    spec = importlib.util.spec_from_file_location("torch_choice_tool", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["torch_choice_tool"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("wish", "driver", "platform", "build", "has_consent"),
    [
        (None, None, "linux", "cpu", True),
        ("", None, "linux", "cpu", True),
        ("auto", 580, "linux", "cu130", False),
        ("auto", 595, "win32", "cu130", False),
        ("auto", 570, "linux", "cu126", False),
        ("auto", 580, "darwin", "cpu", True),
        ("cpu", 580, "linux", "cpu", True),
        ("CU126", None, "linux", "cu126", True),
        ("rocm", None, "linux", "rocm", True),
        ("skip", 580, "linux", "skip", True),
    ],
)
def test_the_build_follows_the_wish_then_the_driver(tool, wish, driver, platform, build, has_consent):
    environ = {} if wish is None else {"SHOESTRING_TORCH": wish}
    choice = tool.choose(environ, driver, platform)
    assert (choice.build, choice.has_consent) == (build, has_consent)


def test_consent_given_beforehand_counts(tool):
    assert tool.choose({"SHOESTRING_ALLOW_CUDA_WHEEL": "1"}, 580, "linux").has_consent
    assert not tool.choose({"SHOESTRING_ALLOW_CUDA_WHEEL": "0"}, 580, "linux").has_consent


def test_an_unknown_wish_names_the_known_ones(tool):
    with pytest.raises(tool.UnknownBuild, match=r"'gpu'.*auto, cpu, cu130, cu126, rocm or skip"):
        tool.choose({"SHOESTRING_TORCH": "gpu"}, None, "linux")


def test_no_requirement_can_match_another_build(tool):
    cpu = tool.build("cpu", "linux")
    assert cpu.requirement == "torch==2.13.0+cpu"  # the CUDA wheel has no local version, so it cannot match
    assert cpu.index.endswith("/cpu")
    assert tool.build("cu130", "linux").requirement == "torch===2.13.0"
    assert tool.build("cu126", "linux").requirement == "torch==2.13.0+cu126"
    assert tool.build("cpu", "darwin").index is None


def test_an_explicit_gpu_build_passes_over_a_wheel_that_is_here(tool):
    assert tool.choose({}, None, "linux").local_first
    assert not tool.choose({"SHOESTRING_TORCH": "cu126"}, 580, "linux").local_first


def test_gigabytes_are_never_agreed_to_in_silence(tool):
    assert not tool.may_download({}, None)
    assert tool.may_download({"SHOESTRING_ALLOW_CUDA_WHEEL": "1"}, None)
    asked = []
    assert tool.may_download({}, lambda question: asked.append(question) or True) is True
    assert "GB" in asked[0]
    assert tool.may_download({}, lambda question: False) is False


@pytest.mark.parametrize(
    ("text", "major"), [("580.95.05\n", 580), ("535.1\n535.1\n", 535), ("", None), ("Failed to start", None)]
)
def test_the_drivers_version(tool, text, major):
    assert tool.parse_driver(text) == major


@given(text=st.text())
def test_any_answer_of_a_driver_is_a_number_or_nothing(tool, text):
    major = tool.parse_driver(text)
    assert major is None or major >= 0


def test_without_nvidia_smi_there_is_no_driver(tool, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tool.nvidia_driver() is None


def test_the_pins_agree_with_constraints(tool):
    constraints = Path(__file__).resolve().parents[2] / "constraints.txt"
    assert tool.ANY in constraints.read_text(encoding="utf-8").splitlines()
