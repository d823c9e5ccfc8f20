"""`quantization_config` in config.json: this package's integers, FP8 in blocks, and no other."""

from pathlib import Path
from typing import Any

from shoestring.errors import CheckpointError
from shoestring.model.memory import BITS, GROUP, Quantization

BlockSize = tuple[int, int]
"""Rows and columns of a weight that share one FP8 scale."""
OTHER_FILES = {
    "hf_quant_config.json": "ModelOpt",
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
}
"""Files in which other programs describe quantized weights, when config.json does not."""
METHOD = "shoestring"
"""`quant_method` of a packed checkpoint; no other program reads its blocks."""


def write_quantization(quantization: Quantization) -> dict[str, Any]:
    """The `quantization_config` of a packed checkpoint; 4-bit groups have a zero point."""
    settings = {"quant_method": METHOD, "bits": BITS[quantization], "group_size": GROUP}
    return settings | ({"zero_point": True} if quantization == "int4" else {})


def read_quantization(settings: Any) -> Quantization | None:
    """The quantization of a packed checkpoint; None for any other. CheckpointError for a damaged one."""
    if not isinstance(settings, dict) or settings.get("quant_method") != METHOD:
        return None
    for name in BITS:
        if write_quantization(name).items() <= settings.items():
            return name
    if settings.get("bits") == 4 and settings.get("group_size") == GROUP and "zero_point" not in settings:
        raise CheckpointError(
            "config.json says 4 bits without zero_point, the form of an earlier version, which this one does "
            "not read; quantize again from the checkpoint that it was made from"
        )
    raise CheckpointError(f"config.json has a quantization_config that this version cannot read: {settings}")


def require_plain(settings: dict[str, Any], path: Path) -> None:
    """Raise CheckpointError if one of OTHER_FILES describes quantized weights; ModelOpt's may not."""
    inner = settings.get("quantization", settings)
    form = inner.get("quant_algo") if isinstance(inner, dict) else inner
    if isinstance(inner, dict) and "quant_algo" in inner and form is None:
        return
    program = OTHER_FILES[path.name] + (f" as {form!r}" if form else "")
    raise CheckpointError(
        f"{path} says that the weights are quantized by {program}; such weights are not read, "
        "so load those they were made from"
    )


def read_fp8_block_size(settings: Any) -> BlockSize | None:
    """The block size of FP8 weights; None without quantization.

    Raises CheckpointError for any other quantization, naming it.
    """
    if settings is None:
        return None
    method = settings.get("quant_method") if isinstance(settings, dict) else settings
    if method != "fp8":
        raise CheckpointError(
            f"config.json says quant_method {method!r}; only 'fp8' with weight_block_size is read, "
            "so load the weights it was made from"
        )
    if settings.get("fmt", "e4m3") != "e4m3":
        raise CheckpointError(f"config.json says fmt {settings['fmt']!r}; only 'e4m3' is read")
    size = settings.get("weight_block_size")
    if not (
        isinstance(size, list) and len(size) == 2 and all(type(n) is int and 0 < n < 2**20 for n in size)
    ):
        raise CheckpointError(
            f"config.json says weight_block_size {size!r}; fp8 weights need two sizes such as [128, 128]"
        )
    return size[0], size[1]
