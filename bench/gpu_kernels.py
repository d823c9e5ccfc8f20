"""Speed of the GPU kernels compared with PyTorch and with the limit of memory or tensor cores.

    python bench/gpu_kernels.py [--json FILE] [--rounds 20] [--dtype bfloat16|float16]

Each figure is the median of `rounds` runs; the L2 cache is overwritten before each, as it is between the
layers of a model. The limit is the time to move the bytes at the measured copy speed of this GPU, or to do
the products at its measured speed for 8192 x 8192 matrices, whichever is longer. Results are compared with
kernels/reference.py in float32; exit code 3 when one is wrong, 4 without a GPU or Triton.
"""

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from shoestring.kernels import native, reference, triton_call, triton_grouped, triton_paged
from shoestring.kernels.packed import LEAST_SCALE, OUTPUTS, SCALE_BYTES, Packed, packed_shape

PAGE_SIZE, LENGTH = 32, 4096
HIDDEN, EXPERT_WIDTH, EXPERTS, EXPERTS_PER_TOKEN = 2048, 1408, 64, 6  # DeepSeek-V2-Lite
FLUSH_BYTES = 256 * 2**20  # several times the largest L2 cache
TOLERANCE = 0.02  # difference over the largest value, for 16 bits


@dataclass(frozen=True)
class Case:
    """One call with its operands, and the bytes and multiply-adds that every implementation needs."""

    name: str
    twin: object
    op: str
    operands: tuple
    num_bytes: float
    num_products: float


def page_tables(sequences, device):
    """Page tables, sequence and length for one new token of each of `sequences` with LENGTH tokens."""
    pages = LENGTH // PAGE_SIZE
    tables = torch.randperm(sequences * pages, device=device).view(sequences, pages).to(torch.int32)
    sequence = torch.arange(sequences, device=device, dtype=torch.int32)
    return tables, sequence, torch.full_like(sequence, LENGTH)


def attention_cases(device, dtype):
    def random(*shape):
        return torch.randn(*shape, device=device, dtype=dtype)

    for model, heads in (("V2-Lite", 16), ("V3", 128)):
        for count in (1, 16, 64):
            tables = page_tables(count, device)
            cache = tuple(random(tables[0].numel(), PAGE_SIZE, width) for width in (512, 64))
            operands = (random(count, heads, 512), random(count, heads, 64), *cache, *tables, 0.07)
            products = count * LENGTH * heads * (512 + 64 + 512)
            num_bytes = count * LENGTH * (512 + 64) * dtype.itemsize
            name = f"MLA {model}, {count} x {LENGTH}"
            yield Case(name, triton_paged, "paged_latent_attention", operands, num_bytes, products)
    for model, heads, key_heads, width in (("Qwen2-0.5B", 14, 2, 64), ("Llama-3-8B", 32, 8, 128)):
        for count in (1, 16, 64):
            tables = page_tables(count, device)
            cache = tuple(random(tables[0].numel(), PAGE_SIZE, key_heads, width) for _ in range(2))
            operands = (random(count, heads, width), *cache, *tables, width**-0.5)
            num_bytes = 2 * count * LENGTH * key_heads * width * dtype.itemsize
            products = 2 * count * LENGTH * heads * width
            name = f"GQA {model}, {count} x {LENGTH}"
            yield Case(name, triton_paged, "paged_attention", operands, num_bytes, products)


def grouped_cases(device, dtype):
    weight = torch.randn(EXPERTS, 2 * EXPERT_WIDTH, HIDDEN, device=device, dtype=dtype) / HIDDEN**0.5
    for tokens in (1, 16, 64, 512, 4096):
        experts = torch.rand(tokens, EXPERTS, device=device).topk(EXPERTS_PER_TOKEN).indices.flatten()
        counts = torch.bincount(experts, minlength=EXPERTS)
        x = torch.randn(tokens * EXPERTS_PER_TOKEN, HIDDEN, device=device, dtype=dtype)
        num_bytes = (int((counts > 0).sum()) * weight[0].numel() + len(x) * (HIDDEN + 2 * EXPERT_WIDTH)) * 2
        operands = (x, weight, counts.cumsum(0).to(torch.int32))
        products = len(x) * weight[0].numel()
        yield Case(
            f"experts, {tokens} tokens", triton_grouped, "grouped_linear", operands, num_bytes, products
        )


def packed_random(shape, bits, device):
    """Random integers of `bits` bits with one plausible scale; of 4 bits, zero is 7.5."""
    blocks = torch.randint(0, 256, packed_shape(shape, bits), device=device, dtype=torch.uint8)
    scale = torch.full((OUTPUTS,), 2.0 ** (1 - bits) / shape[-1] ** 0.5, device=device)
    four = (scale.view(torch.int32) - LEAST_SCALE >> 18 << 6) + 30
    words = four.to(torch.int16) if bits == 4 else scale.half()
    blocks[..., -SCALE_BYTES:] = words.view(torch.uint8)
    return Packed(bits, shape[-2], blocks)


def packed_cases(device, dtype):
    for bits in (4, 8):
        dense = packed_random((10944, HIDDEN), bits, device)
        gate_up = packed_random((EXPERTS, 2 * EXPERT_WIDTH, HIDDEN), bits, device)
        down = packed_random((EXPERTS, HIDDEN, EXPERT_WIDTH), bits, device)
        one = gate_up.blocks[0].numel() + down.blocks[0].numel()
        for tokens in (1, 16, 512):
            x = torch.randn(tokens, HIDDEN, device=device, dtype=dtype)
            experts = torch.rand(tokens, EXPERTS, device=device).topk(EXPERTS_PER_TOKEN).indices
            num_bytes, products = (
                dense.blocks.numel() + 2 * tokens * (HIDDEN + 10944),
                tokens * 10944 * HIDDEN,
            )
            name = f"{bits} bits, layer, {tokens} tokens"
            yield Case(name, triton_grouped, "packed_linear", (x, dense), num_bytes, products)
            num_bytes = len(experts.unique()) * one + 4 * tokens * HIDDEN
            products = 3 * tokens * EXPERTS_PER_TOKEN * EXPERT_WIDTH * HIDDEN
            weights = torch.rand(tokens, EXPERTS_PER_TOKEN, device=device)
            operands = (x, experts, weights, gate_up, down)
            name = f"{bits} bits, experts, {tokens} tokens"
            yield Case(name, triton_grouped, "packed_experts", operands, num_bytes, products)


def seconds(function, rounds, flush):
    """Median seconds on the GPU of one call with an empty cache."""
    times = []
    for index in range(rounds + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        if index >= 3:  # the first runs compile the kernel
            times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def machine(rounds, flush, dtype):
    """Speed of the GPU: bytes/s of a copy, read and written, and multiply-adds/s of a large product."""
    source = torch.empty(2**30, device=flush.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copy_bytes_per_s = 2 * source.numel() / seconds(lambda: target.copy_(source), rounds, flush)
    a = torch.randn(8192, 8192, device=flush.device, dtype=dtype)
    return copy_bytes_per_s, 8192**3 / seconds(lambda: a @ a, rounds, flush)


def error(case):
    """Largest difference to the reference in float32, over the largest value of the reference."""
    precise = [x.float() if torch.is_tensor(x) and x.is_floating_point() else x for x in case.operands]
    expected = getattr(reference, case.op)(*precise)
    result = getattr(case.twin, case.op)(*case.operands).float()
    return float((result - expected).abs().max() / expected.abs().max())


def measure(case, rounds, flush, limits):
    """One row of the table."""
    ours = seconds(lambda: getattr(case.twin, case.op)(*case.operands), rounds, flush)
    torch_module = native if hasattr(native, case.op) else reference
    theirs = seconds(lambda: getattr(torch_module, case.op)(*case.operands), rounds, flush)
    limit = max(case.num_bytes / limits[0], case.num_products / limits[1])
    return {
        "case": case.name,
        "op": case.op,
        "error": error(case),
        "us": ours * 1e6,
        "torch": torch_module.__name__.rpartition(".")[2],
        "torch_us": theirs * 1e6,
        "bytes_per_s": case.num_bytes / ours,
        "limit_us": limit * 1e6,
        "limit_share": limit / ours,
    }


def refusal():
    """Reason why this machine cannot run the benchmark; empty if it can."""
    if not torch.cuda.is_available():
        return "there is no GPU that PyTorch can use, and this benchmark measures only GPUs"
    if not triton_call.available():
        return "Triton is not installed; it comes with PyTorch's GPU builds for Linux, or: pip install triton"
    return ""


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dtype", choices=["bfloat16", "float16"], default="bfloat16")
    arguments = parser.parse_args()
    if reason := refusal():
        print(reason, file=sys.stderr)
        return 4
    torch.manual_seed(0)
    device, dtype = torch.device("cuda"), getattr(torch, arguments.dtype)
    flush = torch.empty(FLUSH_BYTES, device=device, dtype=torch.uint8)
    limits = machine(arguments.rounds, flush, dtype)
    speeds = f"copies {limits[0] / 1e9:.0f} GB/s, {2 * limits[1] / 1e12:.0f} TFLOP/s"
    print(f"{torch.cuda.get_device_name()}: {speeds}")
    rows = []
    for cases in (attention_cases, grouped_cases, packed_cases):
        for case in cases(device, dtype):
            row = measure(case, arguments.rounds, flush, limits)
            rows.append(row)
            speed = f"{row['us']:9.1f} us, {row['torch']} {row['torch_us']:9.1f} us"
            share = f"{row['limit_share']:4.0%} of the limit"
            print(f"  {case.name:<28} {speed}   {share}   error {row['error']:.1e}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 3 if any(not row["error"] <= TOLERANCE for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
