"""The eval verb: text, tasks, the harness's name, thresholds, and scores that repeat."""

import json
import shutil

import pytest

SETTINGS = {"problems": 4, "samples": 2, "k": "[1, 2]", "max_tokens": 8, "options.steps": 1, "greedy": "true"}


def chosen(**changes) -> list[str]:
    return [part for name, value in (SETTINGS | changes).items() for part in ("--set", f"{name}={value}")]


def test_text_is_scored_beside_the_compressors_with_a_threshold_and_again(cli, trained, texts, tmp_path):
    settings = ["--set", "seq_len=64", "--set", "max_tokens=2000"]
    arguments = ["eval", str(trained / "model"), "--source", str(texts), *settings]
    code, out, _ = cli(*arguments, "--json", "--out", str(tmp_path / "bits.json"))
    score = json.loads(out)
    assert code == 0
    assert json.loads((tmp_path / "bits.json").read_text()) == score
    assert 0 < score["result"]["bits_per_byte"] < 8
    assert 0 < score["result"]["xz -9"] < 8
    assert 0 < score["result"]["gzip -9"] < 8
    assert score["config"]["sources"] == [str(texts)]
    assert "model.safetensors" in score["model"]["sha256"]
    code, out, err = cli(*arguments, "--set", "below=0.001")
    assert code == 3
    assert "0.001" in err
    assert "bits_per_byte" in out
    code, out, _ = cli("eval", "--reproduce", str(tmp_path / "bits.json"))
    assert code == 0
    assert "to the last bit" in out


def test_the_figures_of_a_task_are_in_its_table(cli, talker, tmp_path):
    row = {"prompt": "Be brief.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    (tmp_path / "ifeval.jsonl").write_text(json.dumps(row) + "\n")
    task = f"ifeval,test_data={tmp_path / 'ifeval.jsonl'}"
    settings = ["--set", "samples=1", "--set", "k=[1]", "--set", "max_tokens=4"]
    code, out, _ = cli("eval", str(talker), "--task", task, *settings)
    assert code == 0
    for name in ("prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose"):
        assert name in out


@pytest.fixture(scope="module")
def scored(talker, tmp_path_factory):
    """A score of a task, its file and its answers."""
    from shoestring.cli.main import exit_code

    out = tmp_path_factory.mktemp("scores") / "score.json"
    assert exit_code(["eval", str(talker), "--task", "arithmetic", *chosen(), "--out", str(out)]) == 0
    return out


def test_a_task_is_scored_and_kept_with_what_repeats_it(cli, scored, talker):
    score = json.loads(scored.read_text())
    result = score["result"]
    assert (result["problems"], result["samples"], result["faults"]) == (4, 2, 0)
    assert result["pass_at_1"] <= result["pass_at_k"]["2"]
    assert result["intervals"].keys() >= {"pass_at_1", "maj_at_2", "greedy", "mean_thinking_tokens"}
    assert score["config"]["options"] == {"steps": 1}
    assert score["runtime"] == {"device": "cpu", "dtype": "float32"}
    assert {"shoestring", "torch", "numpy", "python"} <= score["versions"].keys()
    lines = [json.loads(line) for line in scored.with_suffix(".jsonl").read_text().splitlines()]
    assert len(lines) == 4
    assert all(len(line["answers"]) == 2 and line["greedy"]["tokens"] <= 8 for line in lines)
    code, out, err = cli("eval", str(talker), "--task", "arithmetic", *chosen(above=0.99))
    assert code == 3
    assert "does not reach 0.99" in err
    assert "maj_at_2" in out


def test_a_score_is_repeated_to_the_last_bit_or_told_apart(cli, scored, talker, tmp_path):
    code, out, _ = cli("eval", "--reproduce", str(scored), "--json")
    assert code == 0
    assert json.loads(out)["differs"] == []
    score = json.loads(scored.read_text())
    score["result"]["mean_tokens"] += 1e-9
    score["versions"]["numpy"] = "0.1"
    (tmp_path / "other.json").write_text(json.dumps(score))
    code, _, err = cli("eval", "--reproduce", str(tmp_path / "other.json"))
    assert code == 3
    assert "the score is not the same: mean_tokens was" in err
    assert "versions numpy was 0.1" in err
    moved = tmp_path / "moved"
    shutil.copytree(talker, moved)
    assert cli("eval", str(moved), "--reproduce", str(scored))[0] == 0
    (moved / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    code, _, err = cli("eval", str(moved), "--reproduce", str(scored))
    assert code == 1
    assert "is not the model that was scored: chat_template.jinja" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "eval needs a model"),
        (["m", "--task", "arithmetic", "--source", "x"], "one at a time"),
        (["m", "--reproduce", "f", "--source", "x"], "takes everything from its file"),
        (["m", "--task", "arithmetic", "--out", "score.txt"], "must be a file that ends in .json"),
        (["m", "--task", "arithmetic", "--set", "tokens=3"], "no 'tokens'; TaskEvalConfig has"),
        (["m", "--task", "lm_eval:arc_easy", "--set", "shots=3"], "no 'shots'; HarnessConfig has"),
        (["m", "--set", "samples=3"], "no 'samples'; TextEvalConfig has"),
        (["m", "--task", "arithmetic", "--set", "samples=0"], "samples = 0 must be"),
        (["{model}", "--task", "arithmetics"], "no task 'arithmetics'"),
        (["{model}", "--task", "arithmetic", "--set", "options.step=1"], "no 'step'"),
        (["no/such/model", "--task", "arithmetic"], "no/such/model"),
    ],
)
def test_wrong_wishes_are_refused_in_one_sentence(cli, talker, arguments, words):
    code, _, err = cli("eval", *[argument.format(model=talker) for argument in arguments])
    assert code in (1, 2)
    assert words in err
    assert err.count("\n") == 1
