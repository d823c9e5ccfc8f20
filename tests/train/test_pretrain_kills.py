import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "kills.py"


def test_a_run_killed_twice_ends_with_the_same_weights(tmp_path):
    """The short form of `python bench/kills.py`, which kills 20 times."""
    command = [
        sys.executable,
        str(BENCH),
        "--kills",
        "2",
        "--steps",
        "40",
        "--json",
        str(tmp_path / "k.json"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(BENCH.parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "k.json").read_text())
    assert result["kills"] == 2
    assert result["sha256_weights_alone"] == result["sha256_weights_killed"]
    assert result["sha256_moments_alone"] == result["sha256_moments_killed"]
    assert result["verdict"] == "PASS"
