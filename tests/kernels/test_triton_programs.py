"""The GPU programs compile for real GPUs, with tensor cores, within their shared memory and registers."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from shoestring.kernels import triton_grouped, triton_paged
from shoestring.kernels.packed import Bits, Packed, packed_shape

SHARED_BYTES = 99 * 1024
"""What one program may use on compute capability 8.6 and 8.9 (CUDA programming guide, table of features)."""
EXPERTS, WIDTH, HIDDEN = 64, 2816, 2048


@dataclass(frozen=True)
class Device:
    """A GPU that is not there, as far as Triton's compiler asks about one."""

    capability: int

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # programs are kept per device, and each of these is another

    def get_current_stream(self, device: int) -> int:
        return device


@pytest.fixture(params=[86, 90])
def built(
    triton_is_there: None,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What was launched, compiled instead; by name."""
    import triton

    cache, made = tmp_path_factory.getbasetemp() / "triton", {}

    def compile_only(self: Any, grid: tuple[int, ...]) -> Callable[..., None]:
        def build(*arguments: Any, **options: int) -> None:
            made[self.__name__] = self.warmup(*arguments, grid=grid, **options)

        return build

    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    monkeypatch.setattr(triton.JITFunction, "__getitem__", compile_only)
    monkeypatch.setattr(triton.runtime.driver, "_active", Device(request.param))
    return made


def check(program: Any, folder: Path) -> None:
    """Tensor cores are used, nothing spills to the stack, and the shared memory of small GPUs suffices."""
    import triton

    assert re.search(r"\b(wg)?mma\.", program.asm["ptx"])
    assert program.metadata.shared <= SHARED_BYTES
    (folder / "program.cubin").write_bytes(program.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(folder / "program.cubin")]
    usage = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert re.findall(r"STACK:(\d+)", usage) == ["0"]


zeros = partial(torch.zeros, dtype=torch.bfloat16)


@pytest.mark.parametrize("heads", [16, 128])
def test_latents_of_v2_lite_and_v3(built: dict[str, Any], heads: int, tmp_path: Path) -> None:
    where = (torch.zeros(5, 20), torch.arange(5), torch.ones(5))
    queries, kept = (zeros(5, heads, 512), zeros(5, heads, 64)), (zeros(2, 32, 512), zeros(2, 32, 64))
    triton_paged.paged_latent_attention(*queries, *kept, *where, 0.1)
    assert set(built) == {"paged_latent", "join_spans"}
    check(built["paged_latent"], tmp_path)


@pytest.mark.parametrize(("heads", "key_heads", "width"), [(14, 2, 64), (32, 8, 128)])
def test_heads_of_qwen2_and_llama(
    built: dict[str, Any], heads: int, key_heads: int, width: int, tmp_path: Path
) -> None:
    where = (torch.zeros(5, 2), torch.arange(5), torch.ones(5))
    kept = zeros(2, 32, key_heads, width)
    triton_paged.paged_attention(zeros(5, heads, width), kept, kept, *where, 0.1)
    assert set(built) == {"paged_heads"}
    check(built["paged_heads"], tmp_path)


@pytest.mark.parametrize("rows", [6, 8192])
def test_experts(built: dict[str, Any], rows: int, tmp_path: Path) -> None:
    ends = torch.full((EXPERTS,), rows)
    triton_grouped.grouped_linear(zeros(rows, HIDDEN), zeros(EXPERTS, WIDTH, HIDDEN), ends)
    check(built["grouped_product"], tmp_path)


@pytest.mark.parametrize("rows", [1, 256])
@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights(built: dict[str, Any], bits: Bits, rows: int, tmp_path: Path) -> None:
    weight = Packed(bits, WIDTH, zeros(packed_shape((WIDTH, HIDDEN), bits), dtype=torch.uint8))
    triton_grouped.packed_linear(zeros(rows, HIDDEN), weight)
    check(built["grouped_product"], tmp_path)
