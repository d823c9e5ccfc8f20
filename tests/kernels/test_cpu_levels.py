"""The level of a CPU by its flags: never one that it does not have, whatever /proc/cpuinfo says."""

import platform
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.kernels import cpu_levels
from shoestring.kernels.cpu_levels import LEVELS, V2, V3, V4, cpu_flags, levels_of


def best(machine: str, flags: str) -> str | None:
    return next((level.name for level in levels_of(machine, flags.split())), None)


@pytest.mark.parametrize(
    ("machine", "flags", "name"),
    [
        ("x86_64", "", None),
        ("x86_64", "sse4_2", None),
        ("x86_64", V2, "x86-64-v2"),
        ("x86_64", f"{V2} avx2 fma", "x86-64-v2"),  # a hypervisor that hides some of version 3
        ("x86_64", f"{V2} avx512f avx512_vnni", "x86-64-v2"),
        ("x86_64", V3, "x86-64-v3"),
        ("x86_64", f"{V3} avx_vnni", "x86-64-v3-vnni"),
        ("x86_64", f"{V3} avx512f avx512_vnni", "x86-64-v3"),  # a Xeon Phi has AVX512F without the others
        ("x86_64", V4, "x86-64-v4"),
        ("x86_64", f"{V4} avx_vnni", "x86-64-v4"),
        ("x86_64", f"{V4} avx512_vnni amx_tile quantum_dots", "x86-64-v4-vnni"),
        ("x86_64", V4.upper(), None),
        ("x86_64", f"{V4} avx512_vnni amx_tile amx_int8", "x86-64-v4-vnni"),
        ("x86_64", f"{V4} avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16", "x86-64-v4-amx"),
        ("i686", V4, None),
        ("riscv64", "imafdcv", None),
        ("aarch64", V4, None),
        ("aarch64", "fp asimd", "armv8"),
        ("aarch64", "fp asimd asimddp", "armv8"),
        ("aarch64", f"fp {cpu_levels.ARM_DOTS} sve", "armv8.2-dotprod"),
    ],
)
def test_the_best_level_of_some_cpus(machine: str, flags: str, name: str | None) -> None:
    assert best(machine, flags) == name


NAMES = {
    **{"sse3": "pni", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "lzcnt": "abm", "bmi": "bmi1"},
    **{"avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni", "amx-int8": "amx_int8", "amx-tile": "amx_tile"},
    **{"amx-bf16": "amx_bf16", "avx512bf16": "avx512_bf16"},
}
"""What /proc/cpuinfo calls instructions that compilers have other names for."""
FLAGS = f"{V4} avx_vnni avx512_vnni asimd asimddp".split()


@given(st.sampled_from(["x86_64", "aarch64", "vax"]), st.sets(st.sampled_from(FLAGS)))
def test_no_level_needs_what_the_cpu_has_not(machine: str, flags: set[str]) -> None:
    found = levels_of(machine, flags)
    assert all(level.needs <= flags and level.machine == machine for level in found)
    assert found == [level for level in LEVELS if level in found]


def test_a_core_that_can_less_decides() -> None:
    large, small = "flags\t\t: avx2 fma avx512f\n", "flags\t\t: avx2 fma\n"
    assert cpu_flags(f"processor\t: 0\n{large}\nprocessor\t: 1\n{small}") == {"avx2", "fma"}
    assert cpu_flags("Features\t: fp asimd\nCPU implementer\t: 0x41\n") == {"fp", "asimd"}


@pytest.mark.parametrize(
    "text", ["", "flags", "flags:", "vmx flags : avx2", "\0\0", "bugs: avx2\nflags\t:\n"]
)
def test_a_cpuinfo_without_flags_has_none(text: str) -> None:
    assert cpu_flags(text) == frozenset()


@given(st.text())
def test_no_text_of_cpuinfo_is_an_error(text: str) -> None:
    assert levels_of("x86_64", cpu_flags(text)) == []


def test_a_cpuinfo_that_is_missing_or_no_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    for content in (None, b"\xff\xfe\x00flags: avx2"):
        path = tmp_path / "cpuinfo"
        if content is not None:
            path.write_bytes(content)
        monkeypatch.setattr(cpu_levels, "CPUINFO", path)
        assert cpu_levels.own_levels() == []


def test_a_mac_has_all_of_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert [level.name for level in cpu_levels.own_levels()] == ["armv8.2-dotprod", "armv8"]


def test_the_needs_of_a_level_are_all_that_its_flags_turn_on() -> None:
    """What the compiler may use is what the CPU was asked for."""
    if platform.machine() != "x86_64":
        pytest.skip("these levels are of x86")
    prefixes = ("avx", "sse", "fma", "bmi", "f16c", "movbe", "amx", "lzcnt", "popcnt")
    for level in (level for level in LEVELS if level.machine == "x86_64"):
        command = ["g++", *level.flags, "-Q", "--help=target"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        enabled = {line.split()[0][2:] for line in listed.splitlines() if line.endswith("[enabled]")}
        used = {NAMES.get(name, name) for name in enabled if name.startswith(prefixes)}
        assert used - {"sse", "sse2", "sse4"} <= level.needs, level.name
