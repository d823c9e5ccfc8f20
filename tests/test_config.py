import math
import os
import tomllib
from dataclasses import dataclass, field, fields
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring import config as configs
from shoestring.distill.collect import CollectConfig
from shoestring.distill.on_policy_recipe import OnPolicyConfig
from shoestring.errors import ConfigError
from shoestring.evals.harness import HarnessConfig
from shoestring.model.lora import LoraConfig
from shoestring.rl.losses import PolicyLossConfig
from shoestring.rl.pipeline import settings_of
from shoestring.rl.recipe import GRPOConfig
from shoestring.rl.stages import RecipeConfig
from shoestring.train.optim import OptimConfig
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.schedule import ScheduleConfig
from shoestring.train.sft_recipe import SFTConfig


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] = ("a",)

    def __post_init__(self) -> None:
        if self.rate > 1:
            raise ConfigError(f"rate = {self.rate} is over 1")


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int = 3
    kind: Literal["plain", "fancy"] = "plain"
    text: str = ""
    flag: bool = False
    limit: float | None = None
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None


texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=40)
inners = st.builds(Inner, rate=st.floats(-1e300, 1.0), names=st.lists(texts, max_size=4).map(tuple))
outers = st.builds(
    Outer,
    count=st.integers(-(2**62), 2**62),
    kind=st.sampled_from(["plain", "fancy"]),
    text=texts,
    flag=st.booleans(),
    limit=st.none() | st.floats(allow_nan=False),
    inner=inners,
    maybe=st.none() | inners,
)


@given(outers)
def test_what_is_saved_comes_back_equal(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "round.toml"
    configs.save(config, path)
    assert configs.load(Outer, path) == config


def test_numbers_come_back_to_the_last_bit(tmp_path):
    for number in (0.1 + 0.2, 10.0 / 14.8, 5e-324, math.pi):
        configs.save(Outer(limit=number), tmp_path / "n.toml")
        assert configs.load(Outer, tmp_path / "n.toml").limit == number


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("count=7", Outer(count=7)),
        (" count = 7 ", Outer(count=7)),
        ("kind=fancy", Outer(kind="fancy")),
        ("text=two words = three", Outer(text="two words = three")),
        ("text='quoted'", Outer(text="quoted")),
        ("text=", Outer(text="")),
        ("text=a\ncount = 9", Outer(text="a\ncount = 9")),
        ("text='1'\ncount = 9", Outer(text="'1'\ncount = 9")),
        ("flag=true", Outer(flag=True)),
        ("limit=1e-3", Outer(limit=1e-3)),
        ("inner.rate=0.25", Outer(inner=Inner(rate=0.25))),
        ("inner.names=['x', 'y']", Outer(inner=Inner(names=("x", "y")))),
        ("maybe.rate=0.25", Outer(maybe=Inner(rate=0.25))),
    ],
)
def test_overrides(setting, expected):
    assert configs.build(Outer, configs.override({}, [setting])) == expected


def test_the_last_override_wins_and_the_source_is_left_alone():
    source = {"inner": {"rate": 0.1}}
    changed = configs.override(source, ["inner.rate=0.2", "inner.rate=0.3"])
    assert changed == {"inner": {"rate": 0.3}}
    assert source == {"inner": {"rate": 0.1}}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("count", "--set takes name=value, not 'count'"),
        ("=3", "--set takes name=value"),
        ("cuont=3", "no 'cuont'; Outer has count, kind, text"),
        ("inner.rat=1", "no 'inner.rat'; Inner has rate, names"),
        ("maybe.rat=1", "no 'maybe.rat'; Inner has rate, names"),
        ("a..b=1", "no 'a'"),
        ("count=three", "count = 'three'"),
        ("count=1.5", "count = 1.5"),
        ("kind=other", "kind = 'other'"),
        ("inner=3", "inner = 3"),
        ("inner.rate=2", "rate = 2.0 is over 1"),
        ("count=2020-01-01", "count = datetime.date"),
        ("count=" + "[" * 5000, "count = "),
    ],
)
def test_a_wrong_override_is_refused_by_name(setting, words):
    with pytest.raises(ConfigError) as caught:
        configs.build(Outer, configs.override({}, [setting]), where="--set")
    assert words in str(caught.value)


def test_a_value_is_not_a_table():
    with pytest.raises(ConfigError, match="'count' is a value, not a table"):
        configs.override({"count": 3}, ["count.x=1"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"count = ", "is not valid TOML"),
        (b"\xff\xfe", "is not valid TOML"),
        (b"count = 1\ncount = 2", "is not valid TOML"),
        (b"x = " + b"[" * 20_000, "is not valid TOML"),
        (b"count = 2020-01-01", "count = datetime.date"),
        (b"color = 1", "no 'color'"),
        (b"[inner]\nrate = 'fast'", "inner.rate = 'fast'"),
    ],
)
def test_a_wrong_file_is_refused_by_its_name(tmp_path, content, words):
    path = tmp_path / "wrong.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        configs.load(Outer, path)
    assert words in str(caught.value)
    assert "wrong.toml" in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no recipe at .*absent\.toml"):
        configs.load(Outer, tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot read the recipe"):
        configs.load(Outer, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_closed_file_is_refused(tmp_path):
    path = tmp_path / "closed.toml"
    path.write_text("count = 1")
    path.chmod(0)
    with pytest.raises(ConfigError, match="cannot read the recipe"):
        configs.load(Outer, path)


def test_names_inside_a_list_of_tables_are_checked_and_saved() -> None:
    data = {"stages": [{"name": "base", "sft": {"model": "tiny"}}]}
    recipe = configs.build(RecipeConfig, data)
    assert configs.build(RecipeConfig, tomllib.loads(configs.dumps(recipe))) == recipe
    data["stages"][0]["titel"] = "misspelled"
    with pytest.raises(ConfigError, match=r"no 'stages\[0\]\.titel'; Stage has name"):
        configs.build(RecipeConfig, data)


R1_MINI = """
[[stages]]
name = "base"
[stages.sft]
start = "r1-mini"
data = ["x.jsonl"]
optim = { clip = 0.5 }
schedule = { warmup = 0.02, constant_until = 0.4, floor = 0.02 }

[[stages]]
name = "zero"
[stages.grpo]
start = "@base/model"
tasks = [{ name = "countdown" }]
prompts = 24
group = 16
updates = 2
refill = 1
refresh_reference = 9
warmup = 3
floor = 0.2
optim = { clip = 0.25 }
[stages.grpo.loss]
kind = "grpo"
clip_low = 0.1
clip_high = 0.3
kl_weight = 0.001
kl_unbiased = false
off_policy_delta = 1.0
mask_truncated = true

[[stages]]
name = "student"
[stages.distill]
teacher = "@zero/model"
student = "@base/model"
tasks = { countdown = {} }
collect = { samples = 3 }
on_policy = { prompts = 5, samples = 6 }
sft = { optim = { clip = 2.0 } }
"""


def test_an_older_recipe_of_stages_is_read_with_a_warning_for_each_old_name(tmp_path, caplog):
    (tmp_path / "r1-mini.toml").write_text(R1_MINI)
    recipe = configs.load(RecipeConfig, tmp_path / "r1-mini.toml")
    base, zero, student = (settings_of(stage, tmp_path, 0) for stage in recipe.stages)
    assert (base.model, base.optim.max_grad_norm) == ("r1-mini", 0.5)
    assert (base.schedule.warmup_ratio, base.schedule.min_lr_ratio) == (0.02, 0.02)
    assert (zero.model, zero.num_prompts, zero.num_generations) == (f"{tmp_path}/base/model", 24, 16)
    assert (zero.steps_per_generation, zero.dynamic_sampling, zero.ref_model_sync_steps) == (2, 1, 9)
    assert (zero.warmup_steps, zero.min_lr_ratio, zero.optim.max_grad_norm) == (3, 0.2, 0.25)
    assert zero.loss == PolicyLossConfig(
        loss_type="grpo",
        epsilon_low=0.1,
        epsilon_high=0.3,
        beta=0.001,
        use_bias_correction_kl=False,
        off_policy_mask_threshold=1.0,
        mask_truncated_completions=True,
    )
    assert student.collect.num_generations == 3
    assert (student.on_policy.num_prompts, student.on_policy.num_generations) == (5, 6)
    assert student.sft_config(tmp_path, "").optim.max_grad_norm == 2.0
    assert caplog.messages.count("stage zero: group is now called num_generations") == 1
    assert len(caplog.messages) == 24


def test_every_old_name_leads_to_a_field():
    classes = (GRPOConfig, PolicyLossConfig, SFTConfig, ScheduleConfig, OptimConfig)
    classes += (CollectConfig, OnPolicyConfig, HarnessConfig, LoraConfig)
    assert {cls.__name__ for cls in classes} == configs.OLD_NAMES.keys()
    for cls in classes:
        names, old_names = {item.name for item in fields(cls)}, configs.OLD_NAMES[cls.__name__]
        assert set(old_names.values()) <= names
        assert not set(old_names) & names


@pytest.mark.parametrize("name", ["clip", "max_grad_norm"])
def test_an_override_by_either_name_wins_over_an_older_recipe(tmp_path, name, caplog):
    (tmp_path / "old.toml").write_text("model = 'tiny'\n[optim]\nclip = 0.5")
    config = configs.load(PretrainConfig, tmp_path / "old.toml", [f"optim.{name}=0.25"])
    assert config.optim.max_grad_norm == 0.25
    warnings = [f"{place}: clip is now called max_grad_norm" for place in (tmp_path / "old.toml", "--set")]
    assert caplog.messages == warnings[: 1 + (name == "clip")]


def test_one_value_under_both_names_is_refused():
    with pytest.raises(ConfigError, match=r"optim\.max_grad_norm is given twice, once under its old name"):
        configs.build(PretrainConfig, {"optim": {"clip": 1.0, "max_grad_norm": 1.0}})


def test_changes_are_named_at_every_depth():
    before = {"a": 1, "t": {"x": 1, "y": [1, 2]}, "gone": 3, "empty": {}}
    after = {"a": 1, "t": {"x": 2, "y": [1, 2]}, "new": 4, "empty": {}}
    assert configs.changes(before, after) == {"t.x": (1, 2), "gone": (3, None), "new": (None, 4)}
    assert configs.changes(before, before) == {}
