import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[3] / "bench" / "interleavings.py"


def test_two_processes_on_one_folder_make_one_run(tmp_path):
    """The short form of `python bench/interleavings.py`, which takes 50 over all verbs."""
    arguments = ["--count", "1", "--verbs", "sft", "--json", str(tmp_path / "i.json")]
    environment = {**os.environ, "PYTHONPATH": str(BENCH.parents[1])}
    command = [sys.executable, str(BENCH), *arguments]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stdout + process.stderr
    result = json.loads((tmp_path / "i.json").read_text())
    assert (result["verdict"], result["faults"]) == ("PASS", [])
    assert result["kept_out_by_the_lock"] + result["killed"] >= 1
