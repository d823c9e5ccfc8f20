"""When the GPU programs are picked; and that nothing imports Triton before they are launched."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from shoestring.kernels import native, ops, reference, triton_call, triton_grouped, triton_paged

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "shoestring" / "kernels"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing picked before, and nothing that this test picked stays."""
    ops.pick.cache_clear()
    yield
    ops.pick.cache_clear()


def test_inference_on_a_gpu_takes_these(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_call, "available", lambda: True)
    for dtype in triton_call.DTYPES:
        for name in ("paged_latent_attention", "paged_attention"):
            assert ops.pick(name, "cuda", dtype, inference=True) is getattr(triton_paged, name)
        for name in ("grouped_linear", "packed_linear", "packed_linear_stack", "packed_experts"):
            assert ops.pick(name, "cuda", dtype, inference=True) is getattr(triton_grouped, name)
    assert ops.pick("rms_norm", "cuda", torch.bfloat16, inference=True) is native.rms_norm


def test_what_they_cannot_do_goes_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_call, "available", lambda: True)
    assert ops.pick("grouped_linear", "cuda", torch.bfloat16) is native.grouped_linear  # needs a gradient
    picked = ops.pick("paged_attention", "cuda", torch.float64, inference=True)
    assert picked is reference.paged_attention
    monkeypatch.setattr(triton_call, "available", lambda: False)
    picked = ops.pick("paged_attention", "cuda", torch.bfloat16, inference=True)
    assert picked is reference.paged_attention


@pytest.mark.parametrize(("size", "wanted"), [(1, 16), (16, 16), (17, 32), (512, 512), (576, 1024)])
def test_blocks_are_powers_of_two(size: int, wanted: int) -> None:
    assert triton_call.block(size) == wanted


def importers(module: str) -> dict[str, set[str]]:
    """Files of the room that import `module`, and the functions they do it in ("" is the top)."""
    found: dict[str, set[str]] = {}
    for path in sorted(KERNELS.glob("*.py")):
        for top in ast.parse(path.read_text(encoding="utf-8")).body:
            for node in ast.walk(top):
                names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if any(name.split(".")[0] == module for name in names):
                    found.setdefault(path.name, set()).add(getattr(top, "name", ""))
    return found


def test_triton_is_imported_in_one_file_and_that_file_when_a_program_is_launched() -> None:
    assert importers("triton") == {"triton_programs.py": {""}}
    assert importers("triton_programs") == {"triton_call.py": {"launch"}}


def test_the_bench_refuses_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, str(ROOT / "bench" / "gpu_kernels.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 4
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "no GPU" in done.stderr
