"""Plans of models and of recipes: what they say, and what they refuse."""

from dataclasses import replace

import pytest

from shoestring.cost.footprint import Intensities, footprint
from shoestring.cost.layout import Layout, device_memory, largest_micro_batch, smallest_layout
from shoestring.cost.plan import PlanConfig, compare, number, plan
from shoestring.cost.published import hardware
from shoestring.cost.serving import Load
from shoestring.errors import ConfigError
from shoestring.model.presets import PRESETS
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.runs.plan import pretraining_plan

V3 = PRESETS["deepseek-v3"]


@pytest.mark.parametrize(
    ("text", "value"), [("14.8T", 14.8e12), ("2b", 2e9), ("500M", 5e8), ("1_000", 1000.0), ("3e5", 3e5)]
)
def test_numbers_of_tokens(text, value):
    assert number(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "T", "-1T", "x", "1e400", "nan", "5Q"])
def test_what_is_no_number_of_tokens(text):
    with pytest.raises(ConfigError, match=r"14\.8T"):
        number(text)


def test_every_part_of_a_plan_has_its_assumptions():
    content = plan("deepseek-v3", V3, PlanConfig())
    assert content["published"]["dollars"] == 5_576_000
    low, high = content["training"]["gpu_hours_interval"]
    assert low < content["training"]["gpu_hours"] < high
    for part in ("training", "memory", "serving"):
        assert all(content[part]["assumptions"].values())
    assert content["training"]["footprint"]["assumptions"]["source"]


def test_the_class_of_v3_itself_gives_back_its_hours():
    content = plan("deepseek-v3", V3, PlanConfig(utilisation="V3 in FP8"))
    assert content["training"]["gpu_hours"] == pytest.approx(2_664_000, rel=1e-9)
    assert "no prediction" in content["training"]["assumptions"]["utilisation"]


def test_a_published_run_without_a_shape_has_no_memory():
    content = plan("llama-3.1-405b", None, PlanConfig(hardware="H100"))
    assert content["cache_bytes_per_token"] == 516_096
    assert "memory" not in content


def test_v3_beside_llama():
    rows = compare(["deepseek-v3", "llama-3.1-405b"], PlanConfig())
    assert rows[0]["hours_ratio"] == pytest.approx(0.0904, abs=1e-4)
    assert [row["dollars"] for row in rows] == [5_576_000, 61_680_000]
    with pytest.raises(ConfigError, match="no published hours"):
        compare(["deepseek-v3", "qwen2.5-72b"], PlanConfig())


@pytest.mark.parametrize(
    "changes",
    [
        {"hardware": "TPU"},
        {"devices": 0},
        {"tokens": float("nan")},
        {"utilisation": "x"},
        {"per_hour": -1.0},
        {"load": Load(hit_share=2.0)},
        {"world": Intensities(pue=-1.0)},
    ],
)
def test_questions_without_sense_are_refused(changes):
    with pytest.raises(ConfigError):
        PlanConfig(**changes)
    with pytest.raises(ConfigError, match="more than the 8 devices"):
        Layout(shard=8, expert=16)


def test_more_shards_take_less_memory_and_larger_micro_batches():
    machine, options = hardware("H800"), {"seq_len": 4096, "gradient_checkpointing": True}
    one, many = Layout(shard=256, expert=256), Layout(shard=1024, expert=256)
    totals = [device_memory(V3, each, micro_batch=1, **options)["total"] for each in (one, many)]
    assert totals[0] > totals[1]
    rows = [largest_micro_batch(V3, each, machine, **options) for each in (one, many)]
    assert rows[0] < rows[1]
    assert largest_micro_batch(V3, Layout(shard=8), machine, **options) == 0
    smallest = smallest_layout(V3, machine, **options)
    assert smallest is not None
    half = replace(smallest["layout"], shard=smallest["layout"].shard // 2, expert=1)
    assert largest_micro_batch(V3, half, machine, **options) == 0


def test_a_model_that_no_layout_holds_says_so():
    giant = replace(V3, hidden_size=V3.hidden_size * 64, intermediate_size=V3.intermediate_size * 64)
    assert "no layout" in plan("giant", giant, PlanConfig())["memory"]["reason"]


def test_a_kilowatt_hour_by_the_stated_factors():
    content = footprint(3.6e6, Intensities())
    assert (content["kwh"], content["kwh_with_pue"]) == (1.0, 1.1)
    assert content["co2_kg"] == pytest.approx(1.1 * 0.385)
    assert content["water_l"] == pytest.approx(1.1 * 9.4)


def test_a_recipe_is_planned_step_by_step():
    config = PretrainConfig(total_tokens=100_000, seq_len=512, batch_size=4)
    work = pretraining_plan(config, PRESETS["demo"])
    assert work.tokens >= 100_000
    assert work.steps > work.tokens / (512 * 4)  # the first batches are smaller
    assert work.flops["mtp"] > 0
    assert work.memory.total > 4 * work.memory.weights
