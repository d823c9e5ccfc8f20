"""A local task of lm-evaluation-harness, run as it is: only the path of its data is filled in."""

import importlib.util
import json
from pathlib import Path

import pytest

from shoestring.cli.main import exit_code

HERE = Path(__file__).parent / "lm_eval"


@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-eval (extra `eval`) is not installed"
)
def test_a_local_task_is_scored(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    text = (HERE / "sums.yaml").read_text().replace("DATA", str(HERE / "sums.jsonl"))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sums.yaml").write_text(text)
    settings = [
        f"--set=include_path={tmp_path / 'tasks'}",
        "--set=apply_chat_template=true",
        "--set=thinking=true",
    ]
    assert exit_code(["eval", "mini", "--task", "lm_eval:sums", "--json", *settings]) == 0
    result = json.loads(capsys.readouterr().out)["result"]["sums"]
    assert result["problems"] == 6
    assert result["figures"]["exact_match,last-number"] >= 0.5
