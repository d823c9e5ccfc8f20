"""OpenMP and MKL as this package wants them; they read the environment once, when torch loads or computes."""

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

SPIN_COUNT = "3000"
"""Rounds, together about a tenth of a millisecond, that a waiting thread spins before it sleeps.

libgomp's own 300,000 are longer than a turn of the scheduler: beside other programs the thread that is waited
for does not run while the waiting one spins. With 3,000 training lost nothing on its own; single runs of
decoding were within 10%, which is their noise.
"""
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
PRODUCTS = "MKL_CBWR"
STRICT = "AUTO,STRICT"
"""MKL's fastest instructions, with sums in one order whatever the number of threads, on Intel's CPUs.

Others are left alone: there MKL promises nothing.
"""


def set_defaults(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what the user has not set. Without effect on a torch that was imported before."""
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = SPIN_COUNT
    if PRODUCTS not in environment and _is_intel():
        environment[PRODUCTS] = STRICT


def _is_intel() -> bool:
    if sys.platform != "linux":
        return False
    try:
        with Path("/proc/cpuinfo").open() as file:
            return "GenuineIntel" in file.read(200)
    except OSError:
        return False
