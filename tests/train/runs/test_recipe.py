import pytest

from shoestring import config as configs
from shoestring.data.chat.mixture import DataSource
from shoestring.distill.on_policy_recipe import OnPolicyConfig
from shoestring.errors import ConfigError
from shoestring.preferences.recipe import PreferenceConfig, RewardModelConfig
from shoestring.rl.recipe import GRPOConfig, TaskShare
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.runs.recipe import RunConfig, require_same_past, resumed
from shoestring.train.sft_recipe import SFTConfig

RECIPES = (
    PretrainConfig(),
    SFTConfig(model="smollm2", data=("talks.jsonl",)),
    GRPOConfig(model="smollm2", tasks=(TaskShare(name="countdown"),)),
    OnPolicyConfig(),
    PreferenceConfig(model="smollm2", data=("pairs.jsonl",)),
    RewardModelConfig(model="smollm2", data=("pairs.jsonl",)),
)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_what_may_change_are_fields_of_the_recipe(recipe):
    table = configs.table(recipe)
    for name in recipe.CAN_CHANGE:
        place = table
        for part in name.split("."):
            if place is None:  # a table that a recipe may leave out, such as that of a judge
                break
            assert part in place, name
            place = place[part]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (["seed=1"], "seed = 1"),
        (["steps=9", "num_prompts=8"], "num_prompts = 8"),
        (["loss.beta=0.5"], "loss.beta = 0.5"),
        (["optim.beta2=0.9"], "optim.beta2 = 0.9"),
        (['tasks=[{name="gsm8k"}]'], "tasks = "),
        (["model=other/model"], "model = 'other/model'"),
    ],
)
def test_what_the_past_depends_on_is_refused_by_name(tmp_path, settings, name):
    configs.save(RECIPES[2], tmp_path / "config.toml")
    with pytest.raises(ConfigError) as caught:
        resumed(GRPOConfig, tmp_path / "config.toml", settings)
    assert str(caught.value).startswith(name)
    assert "the steps so far were taken with" in str(caught.value)
    assert "steps, tags" in str(caught.value)


def test_what_begins_with_the_next_step_may_change(tmp_path):
    configs.save(RECIPES[2], tmp_path / "config.toml")
    settings = [
        "steps=9",
        "eval_every=3",
        "price.per_hour=2",
        "price.source=list",
        "optim.lr=1e-7",
        "tags=['b']",
    ]
    recipe = resumed(GRPOConfig, tmp_path / "config.toml", settings)
    assert (recipe.steps, recipe.eval_every, recipe.price.per_hour) == (9, 3, 2.0)
    assert (recipe.optim.lr, recipe.tags) == (1e-7, ("b",))
    assert resumed(GRPOConfig, tmp_path / "config.toml", []) == RECIPES[2]


def test_a_moved_folder_is_the_same_past():
    one = SFTConfig(model="/runs/a/base/model", data=("/runs/a/x.jsonl",))
    require_same_past(one, SFTConfig(model="/elsewhere/model", data=("b/x.jsonl",)))
    one_of_two, moved = (
        SFTConfig(model="m", data=(DataSource(path=f"{folder}/x.jsonl", weight=2.0), "y.jsonl"))
        for folder in ("/runs/a", "b")
    )
    require_same_past(one_of_two, moved)
    with pytest.raises(ConfigError, match=r"^data = \['b/y.jsonl'\]"):
        require_same_past(one, SFTConfig(model="/elsewhere/model", data=("b/y.jsonl",)))


@pytest.mark.parametrize("tag", ["", "two words", "tab\t", "x" * 41, "\x1b[31m"])
def test_a_tag_is_one_printable_word(tag):
    with pytest.raises(ConfigError, match="a tag is one word"):
        RunConfig(tags=("fine", tag))
