"""The state of each stage, as the folder shows it."""

import pytest

from shoestring.serve.training.stages import MAX_STAGES, stages_of
from shoestring.train.runs.lock import run_lock


def test_the_stages_up_to_the_last_one_that_was_asked_for(run):
    stages = stages_of(run)
    assert [stage.name for stage in stages] == ["corpus", "base", "zero", "student"]
    assert [stage.state for stage in stages] == ["finished", "finished", "stopped", "waiting"]
    assert [stage.kind for stage in stages] == ["corpus", "sft", "grpo", "distill"]
    assert [stage.total for stage in stages] == [None, 1000, 10, None]
    assert stages[0].title == "texts"
    assert stages[1].scores == {"pass_at_1": 0.25, "seconds": 9.0}
    assert stages[3].model_parts == ("student", "student", "model")


def test_a_training_that_goes_on_and_its_scores(run):
    with run_lock(run, until="student"):
        assert [stage.state for stage in stages_of(run)] == ["finished", "finished", "running", "waiting"]
        (run / "zero" / "report.json").write_text("{}")
        assert stages_of(run)[2].state == "scoring"


def test_a_run_of_one_training_is_one_stage(tmp_path):
    (tmp_path / "config.toml").write_text("steps = 7\nnum_generations = 4\n")
    (stage,) = stages_of(tmp_path)
    assert (stage.name, stage.kind, stage.state, stage.total) == ("", "grpo", "stopped", 7)
    assert stage.model_parts == ("model",)
    (tmp_path / "report.json").write_text("{}")
    assert stages_of(tmp_path)[0].state == "finished"


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ('data = ["a"]', "sft"),
        ('data = ["a"]\n[loss]\nloss_type = "kto"', "prefer"),
        ("center_rewards_coefficient = 0.0", "reward_model"),
        ('teacher = "t"', "distill"),
    ],
)
def test_the_kind_of_one_training_is_told_by_its_settings(tmp_path, config, kind):
    (tmp_path / "config.toml").write_text(config)
    assert [stage.kind for stage in stages_of(tmp_path)] == [kind]


@pytest.mark.parametrize(
    "config",
    [
        "stages = 1",
        'stages = [1, "x"]',
        '[[stages]]\nname = "../x"',
        '[[stages]]\nname = ".."',
        "[[stages]]\nname = 5",
        "x",
    ],
)
def test_a_hostile_recipe_has_no_stage_outside(tmp_path, config):
    (tmp_path / "config.toml").write_text(config)
    assert [stage.name for stage in stages_of(tmp_path)] in ([], [""])


def test_a_recipe_of_many_stages_is_cut(tmp_path):
    (tmp_path / "config.toml").write_text("".join(f'[[stages]]\nname = "s{i}"\n' for i in range(300)))
    assert len(stages_of(tmp_path)) == MAX_STAGES
