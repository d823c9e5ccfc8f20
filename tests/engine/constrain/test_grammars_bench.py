import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[3] / "bench" / "schemas.py"


def test_documents_are_valid_and_hostile_grammars_are_refused_in_time(tmp_path):
    """The short form of `python bench/schemas.py`: 1,000 schemas and 10,000 hostile grammars."""
    sizes = ["--schemas", "40", "--hostile", "70", "--vocab-size", "1000"]  # two of every hostile family
    command = [sys.executable, str(BENCH), *sizes, "--json", str(tmp_path / "result.json")]
    environment = {**os.environ, "PYTHONPATH": str(BENCH.parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 3), done.stderr  # 3 also when a busy machine was too slow
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["schemas"] == 40
    assert result["invalid"] == result["unfinished"] == result["crashes"] == 0, result
    assert result["refused"] > 10
    assert result["compiled"] > 10
    assert result["hostile_max_s"] < 10  # a second on a machine that does nothing else
