"""`shoestring rl` and `shoestring demo`, on models and budgets that take seconds."""

import json
from pathlib import Path

import pytest

from shoestring import config as configs
from shoestring.cli.verbs import demo
from shoestring.rl.pipeline import is_same_recipe, settings_of
from shoestring.rl.recipe import GRPOConfig
from shoestring.rl.stages import RecipeConfig
from shoestring.train.pretrain_recipe import PretrainConfig

RECIPE = """
title = "tiny"

[score.tasks.countdown]
problems = 2
samples = 8
k = [1, 8]
greedy = true
temperature = 1.0
max_tokens = 8

[score.tasks.greeting]
problems = 2
samples = 1
k = [1]
max_tokens = 8

[[stages]]
name = "corpus"
[stages.corpus]
conversations = 100
vocab_size = 320

[[stages]]
name = "base"
[stages.sft]
model = "SHAPE"
tokenizer = "@corpus/tokenizer"
data = ["@corpus/conversations.jsonl"]
learn = "all"
total_tokens = 2000
seq_len = 128
batch_tokens = 512
micro_tokens = 512

[[stages]]
name = "zero"
[stages.grpo]
model = "@base/model"
tasks = [{ name = "countdown" }]
steps = 2
num_prompts = 2
num_generations = 2
max_tokens = 12
eval_every = 1

[[stages]]
name = "student"
[stages.distill]
teacher = "@zero/model"
student = "@base/model"
tasks = { countdown = {} }
problems = 4
thinking = true
[stages.distill.collect]
num_generations = 1
max_tokens = 12
keep = { reward = 0.0, thinking = false }
[stages.distill.sft]
total_tokens = 500
seq_len = 128
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    from shoestring.distill import collect, keep
    from shoestring.model import presets

    shape = presets.replace(presets.TINY, vocab_size=320, num_nextn_predict_layers=0)
    monkeypatch.setitem(presets.PRESETS, "test-shape", shape)
    for module in (collect, keep):  # a random model never ends by itself
        monkeypatch.setattr(module, "COMPLETE", (*keep.COMPLETE, "length"))
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.replace("SHAPE", "test-shape"))
    return path


def test_the_stages_run_are_scored_and_drawn(cli, recipe, tmp_path):
    out = tmp_path / "run"
    code, shown, err = cli("rl", str(recipe), "--out", str(out), "--until", "zero", "--quiet")
    assert code == 0, err
    assert "zero" in shown
    report = json.loads((out / "report.json").read_text())
    rows = {row["name"]: row for row in report["stages"]}
    assert list(rows) == ["corpus", "base", "zero"]
    zero = rows["zero"]
    for name in ("pass_at_1", "maj_at_8", "mean_thinking_tokens", "seconds", "train_flops", "problems"):
        assert zero[name] is not None
    assert zero["intervals"]["pass_at_1"][0] <= zero["pass_at_1"] <= zero["intervals"]["pass_at_1"][1]
    assert zero["train_flops"] > 0
    assert "greeting" in zero["other_tasks"]
    assert (out / "stages.png").stat().st_size > 1000
    assert "data:image/png" in (out / "report.html").read_text()
    logged = [json.loads(line) for line in (out / "zero" / "metrics.jsonl").read_text().splitlines()]
    assert all("eval_accuracy" in row for row in logged)
    weights = (out / "base" / "model" / "model.safetensors").read_bytes()

    code, shown, err = cli("rl", "--out", str(out), "--resume", "--quiet", "--json")
    assert code == 0, err
    assert [row["name"] for row in json.loads(shown)["stages"]] == ["corpus", "base", "zero", "student"]
    assert json.loads(shown)["stages"][:3] == report["stages"]  # done is done
    assert (out / "base" / "model" / "model.safetensors").read_bytes() == weights
    assert "Teacher" in (out / "student" / "student" / "model" / "README.md").read_text()


PREFERENCES = """
[[stages]]
name = "pairs"
[stages.corpus]
pairs = 12

[[stages]]
name = "helpful"
[stages.reward_model]
model = "@base/model"
data = ["@pairs/pairs.jsonl"]
seq_len = 200

[[stages]]
name = "preferring"
[stages.prefer]
model = "@base/model"
data = ["@pairs/pairs.jsonl"]
seq_len = 200

[[stages]]
name = "r1"
[stages.grpo]
model = "@preferring/model"
tasks = [{ name = "countdown" }, { name = "greeting" }]
steps = 1
num_prompts = 2
num_generations = 2
max_tokens = 12
reward = { model = "@helpful/model", model_tasks = ["greeting"] }
"""


def test_preferences_are_stages_too(cli, recipe, tmp_path):
    """A reward model has no score; the reinforcement that it judges takes it by its stage's name."""
    text = recipe.read_text()
    recipe.write_text(text[: text.index('[[stages]]\nname = "zero"')] + PREFERENCES)
    out = tmp_path / "run"
    code, _, err = cli("rl", str(recipe), "--out", str(out), "--quiet")
    assert code == 0, err
    rows = {row["name"]: row for row in json.loads((out / "report.json").read_text())["stages"]}
    assert list(rows) == ["corpus", "base", "pairs", "helpful", "preferring", "r1"]
    assert rows["helpful"]["figures"]["loss_type"] == "bradley-terry"
    assert "pass_at_1" not in rows["helpful"]
    assert rows["preferring"]["pass_at_1"] is not None
    (row,) = [json.loads(line) for line in (out / "r1" / "metrics.jsonl").read_text().splitlines()]
    assert "preference" in row


def test_the_model_that_a_recipe_begins_with_is_scored_first_and_once(cli, recipe, model_folder, tmp_path):
    out, base = tmp_path / "run", model_folder(3)
    text = recipe.read_text().replace(
        "[score.tasks.countdown]", f'[score]\nbase = "{base}"\n[score.tasks.countdown]'
    )
    recipe.write_text(text)
    code, shown, err = cli("rl", str(recipe), "--out", str(out), "--until", "base", "--quiet")
    assert code == 0, err
    first, *others = json.loads((out / "report.json").read_text())["stages"]
    assert (first["name"], first["kind"]) == (base.name, "base")
    assert first["intervals"]["pass_at_1"][0] <= first["pass_at_1"] <= first["intervals"]["pass_at_1"][1]
    assert [row["name"] for row in others] == ["corpus", "base"]
    assert base.name in shown
    assert (out / "answers-countdown.jsonl").is_file()
    assert not (base.parent / "answers-countdown.jsonl").exists()
    scored_at = (out / "base.json").stat().st_mtime_ns
    assert cli("rl", "--out", str(out), "--resume", "--until", "base", "--quiet")[0] == 0
    assert (out / "base.json").stat().st_mtime_ns == scored_at


def test_a_base_that_is_not_there_is_named_before_anything_runs(cli, recipe, tmp_path):
    recipe.write_text(
        recipe.read_text().replace(
            "[score.tasks.countdown]", '[score]\nbase = "smollm2"\n[score.tasks.countdown]'
        )
    )
    code, _, err = cli("rl", str(recipe), "--out", str(tmp_path / "run"))
    assert code != 0
    assert "shoestring pull smollm2" in err
    assert not (tmp_path / "run").exists()


def test_the_demo_is_the_recipe_up_to_its_student(cli, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "recipe_file", lambda name: recipe)
    out = tmp_path / "demo"
    code, shown, err = cli("demo", "--out", str(out), "--quiet", "--seed", "3")
    assert code == 0, err
    assert "student" in shown
    assert configs.load(RecipeConfig, out / "config.toml").seed == 3
    report = json.loads((out / "report.json").read_text())
    code, again, err = cli("demo", "--out", str(out), "--json")
    assert code == 0
    assert "this demo is finished" in err
    assert json.loads(again) == report


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--until", "nothing"], 2, "no stage 'nothing'; the recipe has corpus, base"),
        (["--set", "stages=[]"], 2, "no stages"),
    ],
)
def test_wrong_arguments_are_named(cli, recipe, tmp_path, arguments, code, words):
    found, _, err = cli("rl", str(recipe), "--out", str(tmp_path / "run"), *arguments)
    assert found == code
    assert words in err


def test_a_path_that_no_stage_makes_is_refused_before_anything_runs(cli, recipe, tmp_path):
    recipe.write_text(recipe.read_text().replace("@zero/model", "@zeroo/model"))
    code, _, err = cli("rl", str(recipe), "--out", str(tmp_path / "run"))
    assert code == 2
    assert "stage student takes @zeroo/model, which no earlier stage makes" in err


def test_a_misspelled_setting_is_refused_before_anything_runs(cli, recipe, tmp_path):
    recipe.write_text(recipe.read_text().replace("num_generations = 2", "num_generatoins = 2"))
    code, _, err = cli("rl", str(recipe), "--out", str(tmp_path / "run"))
    assert code == 2
    assert "stage zero: no 'num_generatoins'" in err
    assert not (tmp_path / "run").exists()


def test_without_a_recipe_a_model_is_asked_for(cli, tmp_path):
    code, _, err = cli("rl", "--out", str(tmp_path / "run"))
    assert code == 2
    assert "model" in err


def test_every_recipe_loads(repository):
    recipes = sorted((repository / "recipes").glob("*.toml"))
    assert len(recipes) >= 3
    for path in recipes:
        text = path.read_text()
        if "[[stages]]" in text:
            for stage in (recipe := configs.load(RecipeConfig, path)).stages:
                settings_of(stage, Path("run"), recipe.seed)
        else:
            configs.load(GRPOConfig if "[[tasks]]" in text else PretrainConfig, path)


def test_the_demos_recipe_is_the_shipped_one(repository):
    shipped = configs.load(RecipeConfig, repository / "recipes" / "r1-mini.toml")
    assert demo.demo_recipe(0) == shipped
    assert demo.LAST in [stage.name for stage in shipped.stages]


def test_a_recipe_is_the_same_whichever_names_it_uses(recipe):
    text = recipe.read_text()
    older = recipe.with_name("older.toml")
    older.write_text(text.replace("num_prompts =", "prompts =").replace("model = ", "start = "))
    other = recipe.with_name("other.toml")
    other.write_text(text.replace("num_prompts = 2", "num_prompts = 3"))
    first, second, third = (configs.load(RecipeConfig, path) for path in (recipe, older, other))
    assert first != second
    assert is_same_recipe(first, second)
    assert not is_same_recipe(first, third)


def test_resuming_with_another_recipe_is_refused(cli, recipe, tmp_path):
    out = tmp_path / "run"
    assert cli("rl", str(recipe), "--out", str(out), "--until", "corpus", "--quiet")[0] == 0
    assert cli("rl", str(recipe), "--out", str(out), "--until", "corpus", "--quiet", "--resume")[0] == 0
    recipe.write_text(recipe.read_text().replace("num_prompts = 2", "num_prompts = 3"))
    code, _, err = cli("rl", str(recipe), "--out", str(out), "--resume")
    assert code == 2
    assert "--resume takes the recipe from" in err
    code, _, err = cli("rl", str(recipe), "--out", str(tmp_path / "none"), "--resume")
    assert code == 2
    assert "has no run to resume" in err
