import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoestring import openmp

ROOT = Path(__file__).parents[1]


def intel(monkeypatch, is_intel: bool) -> None:
    monkeypatch.setattr(openmp, "_is_intel", lambda: is_intel)


def test_waiting_threads_sleep_soon_and_products_have_one_order(monkeypatch):
    intel(monkeypatch, True)
    environment = {"HOME": "/"}
    openmp.set_defaults(environment)
    assert environment == {"HOME": "/", "GOMP_SPINCOUNT": "3000", "MKL_CBWR": "AUTO,STRICT"}


def test_products_of_other_makers_are_left_alone(monkeypatch):
    intel(monkeypatch, False)
    environment: dict[str, str] = {}
    openmp.set_defaults(environment)
    assert "MKL_CBWR" not in environment


@pytest.mark.parametrize("own", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}])
def test_what_the_user_set_stays(monkeypatch, own):
    intel(monkeypatch, True)
    environment = own | {"MKL_CBWR": "COMPATIBLE"}
    openmp.set_defaults(environment)
    assert environment == own | {"MKL_CBWR": "COMPATIBLE"}


LOADED = """
import shoestring, torch
from pathlib import Path
from shoestring.kernels.cpu_build import library
library()
files = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
print(*[file for file in sorted(files) if any(n in file for n in ("libgomp", "libomp", "libiomp"))])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_kernels_share_the_threads_of_torch():
    """Two OpenMP libraries would have a pool of waiting threads each."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LOADED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1
