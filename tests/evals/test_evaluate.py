"""Scores by name from the library: what the command line prints, without it."""

import pytest

from shoestring.device import choose
from shoestring.errors import CheckpointError, ConfigError, ThresholdError
from shoestring.evals.evaluate import Subject, build_config, check_thresholds, evaluate, repeat
from shoestring.evals.harness import HarnessConfig
from shoestring.evals.perplexity import TextEvalConfig
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import save_model
from tests.caches import own_cache

DATA = {"problems": 3, "samples": 2, "k": [1, 2], "max_tokens": 8, "options": {"steps": 1}}


@pytest.fixture(scope="module")
def subject(model, folder, tmp_path_factory) -> Subject:
    target = tmp_path_factory.mktemp("subject") / "model"
    save_model(model, target, tokenizer_files=folder)
    return Subject(name="tiny", checkpoint=Checkpoint.open(target), runtime=choose("cpu"))


def test_the_name_decides_which_settings_there_are():
    assert build_config("text", {"seq_len": 9}, "here") == TextEvalConfig(seq_len=9)
    assert build_config("lm_eval:arc_easy,boolq", {"limit": 9}, "here") == HarnessConfig(limit=9)
    assert build_config("countdown", DATA, "here").options == {"steps": 1}
    with pytest.raises(ConfigError, match="here: no 'limit'; TaskEvalConfig has"):
        build_config("countdown", {"limit": 9}, "here")


def test_a_task_is_scored_and_repeated(subject, tmp_path):
    file = tmp_path / "answers.jsonl"
    score = evaluate("arithmetic", build_config("arithmetic", DATA, "-"), subject, transcripts=file)
    assert (score["name"], score["model"]["name"]) == ("arithmetic", "tiny")
    assert (score["result"]["problems"], score["result"]["samples"]) == (3, 2)
    assert len(file.read_text().splitlines()) == 3
    repetition = repeat(score, subject, where="score.json")
    assert (repetition.score["differs"], repetition.changes) == ([], [])
    check_thresholds(repetition.score)
    score["result"]["mean_tokens"] += 1e-9
    score["versions"]["numpy"] = "0.1"
    repetition = repeat(score, subject, where="score.json")
    assert len(repetition.changes) == 1
    assert repetition.changes[0].startswith("versions numpy was 0.1")
    with pytest.raises(ThresholdError, match="the score is not the same: mean_tokens was"):
        check_thresholds(repetition.score)
    score["model"]["sha256"]["config.json"] = "0"
    with pytest.raises(CheckpointError, match=r"is not the model that was scored: config\.json"):
        repeat(score, subject, where="score.json")


def test_text_is_scored(subject, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", own_cache(tmp_path / "cache"))
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(f"What is {number} + {number}? It is {2 * number}.\n" * 9)
    config = TextEvalConfig(sources=(f"{tmp_path}/*.txt",), seq_len=32, max_tokens=500)
    result = evaluate("text", config, subject)["result"]
    assert result["bits_per_byte"] > 0
    assert {"gzip -9", "xz -9", "tokens", "utf8_bytes", "documents"} < result.keys()


@pytest.mark.parametrize(
    ("config", "result", "words"),
    [
        ({"above": 0.5}, {"pass_at_1": 0.4}, "does not reach 0.5"),
        ({"below": 2.0}, {"bits_per_byte": 2.0}, "are not below 2.0"),
    ],
)
def test_thresholds(config, result, words):
    with pytest.raises(ThresholdError, match=words):
        check_thresholds({"config": config, "result": result})
    check_thresholds({"config": dict.fromkeys(config), "result": result})
