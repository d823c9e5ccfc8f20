"""The build of torch for this machine, chosen from the environment, the driver and the platform."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

VERSION = "2.13.0"
ANY = f"torch=={VERSION}"  # also matches 2.13.0+cpu, and pip prefers a local version
INDEX = "https://download.pytorch.org/whl/"
CPU_SIZE = "190 MB to download"
GPU_SIZE = "over 4 GB on disk"
# name of a build -> its name in the address of torch's own index
BUILDS = {"cpu": "cpu", "cu130": "cu130", "cu126": "cu126", "rocm": "rocm7.2"}
CUDA_13_DRIVER = 580  # oldest NVIDIA driver (Linux, Windows) that runs CUDA 13
CONSENT = "SHOESTRING_ALLOW_CUDA_WHEEL"
REFUSAL = (
    f"The CPU build of torch cannot be downloaded, and the CUDA build takes {GPU_SIZE}: "
    f"set {CONSENT}=1 to agree to that, or PIP_FIND_LINKS to a folder that holds a CPU wheel of {ANY}."
)


class UnknownBuild(Exception):
    """SHOESTRING_TORCH names a build that does not exist."""


@dataclass(frozen=True)
class Choice:
    """One build of torch and how to get it."""

    build: str
    """cpu, cu130, cu126, rocm or skip."""
    requirement: str = ANY
    index: str | None = None
    """An index to look in beside the usual one."""
    local_first: bool = True
    """Prefer a wheel that is already on this machine, of any build."""
    has_consent: bool = True
    """False for gigabytes that the user has not agreed to yet."""

    @property
    def size(self) -> str:
        return CPU_SIZE if self.build == "cpu" else GPU_SIZE


def choose(environ: Mapping[str, str], driver: int | None, platform: str) -> Choice:
    """The build for this machine: `driver` is NVIDIA's major version or None, `platform` is sys.platform.

    Raises UnknownBuild when SHOESTRING_TORCH is none of the documented words.
    """
    wish = environ.get("SHOESTRING_TORCH", "").strip().lower() or "auto"
    if wish == "skip":
        return Choice("skip")
    if wish in BUILDS:
        return build(wish, platform, local_first=wish == "cpu")
    if wish != "auto":
        raise UnknownBuild(f"SHOESTRING_TORCH={wish!r}: it takes auto, {', '.join(BUILDS)} or skip")
    if driver is None or platform == "darwin":
        return build("cpu", platform)
    return build(
        "cu130" if driver >= CUDA_13_DRIVER else "cu126", platform, has_consent=consent_given(environ)
    )


def build(name: str, platform: str, *, local_first: bool = True, has_consent: bool = True) -> Choice:
    """The requirement and index of the build `name`, pinned by its local version so that no other matches."""
    if name == "cpu" and platform != "linux":
        return Choice(name)  # on macOS and Windows the ordinary wheel is the CPU one
    if name == "cu130" and platform == "linux":
        # the ordinary Linux wheel is built for CUDA 13; === refuses every local version such as +cpu
        return Choice(name, f"torch==={VERSION}", local_first=local_first, has_consent=has_consent)
    suffix = BUILDS[name]
    return Choice(name, f"{ANY}+{suffix}", INDEX + suffix, local_first=local_first, has_consent=has_consent)


def consent_given(environ: Mapping[str, str]) -> bool:
    return environ.get(CONSENT, "") == "1"


def may_download(environ: Mapping[str, str], ask: Callable[[str], bool] | None) -> bool:
    """Return whether the user agrees to gigabytes, by the environment or by the answer to `ask`."""
    if consent_given(environ):
        return True
    return ask is not None and ask(f"Install the GPU build of torch, {GPU_SIZE}?")


def nvidia_driver() -> int | None:
    """The NVIDIA driver's major version, or None without a driver that answers."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_driver(process.stdout) if process.returncode == 0 else None


def parse_driver(text: str) -> int | None:
    """The first part of a version, 580 of "580.95.05"; None when that is not a number."""
    major = text.strip().split(".")[0]
    return int(major) if major.isdecimal() else None
