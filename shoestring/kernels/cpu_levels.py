"""Levels of CPUs that a wheel has kernels for, and those of this CPU: for users without a compiler."""

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Other names of machines, in lower case."""
V2 = "cx16 lahf_lm pni popcnt sse4_1 sse4_2 ssse3"
V3 = f"{V2} abm avx avx2 bmi1 bmi2 f16c fma movbe"
V4 = f"{V3} avx512bw avx512cd avx512dq avx512f avx512vl"
ARM_DOTS = "asimd asimddp asimdrdm atomics crc32"


@dataclass(frozen=True)
class Level:
    """A set of instructions: the compiler's flags for it, and the flags in /proc/cpuinfo of such CPUs."""

    name: str
    machine: str
    flags: tuple[str, ...]
    needs: frozenset[str]


def _level(name: str, machine: str, flags: str, needs: str) -> Level:
    return Level(name, machine, tuple(flags.split()), frozenset(needs.split()))


LEVELS = (
    _level(
        "x86-64-v4-amx",
        "x86_64",
        "-march=x86-64-v4 -mavx512vnni -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16",
        f"{V4} avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16",
    ),
    _level("x86-64-v4-vnni", "x86_64", "-march=x86-64-v4 -mavx512vnni", f"{V4} avx512_vnni"),
    _level("x86-64-v4", "x86_64", "-march=x86-64-v4", V4),
    _level("x86-64-v3-vnni", "x86_64", "-march=x86-64-v3 -mavxvnni", f"{V3} avx_vnni"),
    _level("x86-64-v3", "x86_64", "-march=x86-64-v3", V3),
    _level("x86-64-v2", "x86_64", "-march=x86-64-v2", V2),
    _level("armv8.2-dotprod", "aarch64", "-march=armv8.2-a+dotprod", ARM_DOTS),
    _level("armv8", "aarch64", "-march=armv8-a", "asimd"),
)
"""The best first."""


def machine() -> str:
    """This machine as LEVELS call it."""
    name = platform.machine()
    return MACHINES.get(name.lower(), name)


def levels_of(machine: str, flags: Iterable[str]) -> list[Level]:
    """The levels that a CPU with these flags has, the best first; flags that are unknown change nothing."""
    features = frozenset(flags)
    return [level for level in LEVELS if level.machine == machine and level.needs <= features]


def cpu_flags(text: str) -> frozenset[str]:
    """The flags that every core has, from the text of /proc/cpuinfo; none if it does not say."""
    cores = [
        frozenset(value.split())
        for name, colon, value in (line.partition(":") for line in text.splitlines())
        if colon and name.strip() in ("flags", "Features")
    ]
    return frozenset.intersection(*cores) if cores else frozenset()


def own_levels() -> list[Level]:
    """The levels of this CPU, the best first. Every Mac with an ARM CPU has all of ARM's."""
    if platform.system() == "Darwin" and machine() == "aarch64":
        return [level for level in LEVELS if level.machine == "aarch64"]
    try:
        text = CPUINFO.read_text(errors="replace")
    except OSError:
        return []
    return levels_of(machine(), cpu_flags(text))
