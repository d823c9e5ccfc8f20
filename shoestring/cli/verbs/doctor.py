"""`shoestring doctor`: measure this machine and list missing packages."""

import importlib.metadata
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from shoestring.cli.options import Json
from shoestring.cli.output import amount, print_json

OPTIONAL = {
    "matplotlib": "pictures of training curves (extra: plots)",
    "pyarrow": "parquet data (extra: data)",
    "gguf": "GGUF files with K-quants (extra: gguf)",
    "llguidance": "constrained output",
    "transformers": "parity tests (extra: hf)",
}


def doctor(*, as_json: Json = False) -> None:
    """Measure this machine and list the installed packages.

    Exits with 4 if training cannot work.
    """
    from shoestring.errors import MissingDependencyError

    report = examine()
    if as_json:
        print_json(report)
    else:
        _print(report)
    if report["problems"]:
        raise MissingDependencyError("; ".join(report["problems"]))


def examine() -> dict[str, Any]:
    """The report as JSON: machine, speeds, packages and problems."""
    import torch

    from shoestring.device import choose, measure_peak
    from shoestring.engine.measure import measure_reads
    from shoestring.kernels import cpu_build
    from shoestring.train.report.receipt import describe_machine

    runtime = choose()
    peak = measure_peak(runtime)
    has_kernels = cpu_build.library() is not None
    free = shutil.disk_usage(Path.cwd()).free
    problems = []
    if free < 1 << 30:
        problems.append(f"only {free / 2**20:.0f} MiB of disk are free here; a demo run needs about 1 GiB")
    return {
        "python": platform.python_version(),
        "machine": describe_machine(runtime.device.type, peak),
        "device": str(runtime.device),
        "compute_dtype": str(runtime.compute_dtype).removeprefix("torch."),
        "matmul_flops_per_s": peak,
        "memory_bytes_per_s": measure_reads(runtime),
        "threads": torch.get_num_threads(),
        "cpu_kernels": "compiled"
        if has_kernels
        else "plain PyTorch: install a C++ compiler for twice the speed",
        "disk_free_bytes": free,
        "packages": {name: _version(name) for name in ("torch", "tokenizers", "safetensors", *OPTIONAL)},
        "problems": problems,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _print(report: dict[str, Any]) -> None:
    machine = report["machine"]
    lines = {
        "python": f"{report['python']} ({sys.platform})",
        "processor": f"{machine.get('cpu', 'unknown')}, {report['threads']} threads",
        "device": f"{report['device']} computing in {report['compute_dtype']}",
        "matrix products": f"{amount(report['matmul_flops_per_s'], 'G')}FLOP/s measured",
        "memory reads": f"{amount(report['memory_bytes_per_s'], 'G')}B/s measured",
        "CPU kernels": report["cpu_kernels"],
        "disk free here": f"{amount(report['disk_free_bytes'], 'G')}B",
    }
    for name, value in lines.items():
        print(f"{name:<16} {value}")
    for name, version in report["packages"].items():
        missing = f"missing; needed for {OPTIONAL[name]}" if name in OPTIONAL else "MISSING"
        print(f"{name:<16} {version or missing}")
    for problem in report["problems"]:
        print(f"PROBLEM          {problem}")
