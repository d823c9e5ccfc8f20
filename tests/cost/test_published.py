"""The planner is right about the past: hours, dollars, caches, nodes and margins as they were published."""

import pytest

from shoestring.cost.footprint import Intensities
from shoestring.cost.published import cache_bytes, hardware, runs, serving
from shoestring.cost.serving import Load, day, income, nodes, published_shares, smallest
from shoestring.cost.training import published
from shoestring.cost.utilisation import class_names, leave_one_out, utilisation_class
from shoestring.errors import ConfigError
from shoestring.model.cost import cache_bytes_per_token
from shoestring.model.memory import weight_bytes
from shoestring.model.presets import PRESETS

V3 = PRESETS["deepseek-v3"]
DAY_S = 86_400
SERVICE = Load(input_per_s=608e9 / DAY_S, output_per_s=168e9 / DAY_S)


def test_v3_cost_2788_thousand_hours_and_5576_thousand_dollars():
    content = published(runs()["deepseek-v3"], hardware("H800"), 2.0, Intensities())
    assert content["gpu_hours"] == 2_788_000
    assert content["dollars"] == 5_576_000
    assert content["stages"]["pretraining"] == {"gpu_hours": 2_664_000, "dollars": 5_328_000}
    assert "salaries" in content["excluded"]


def test_r1_cost_294_thousand_dollars_more():
    assert published(runs()["deepseek-r1"], hardware("h800"), 2.0, Intensities())["dollars"] == 294_000


def test_v3_took_9_percent_of_the_hours_of_llama_405b():
    assert runs()["deepseek-v3"].hours / runs()["llama-3.1-405b"].hours == pytest.approx(0.0904, abs=0.0001)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *(("deepseek-v2-lite", 31_104), ("deepseek-v2", 69_120), ("deepseek-v3", 70_272)),
        *(("qwen2.5-72b", 327_680), ("llama-3.1-405b", 516_096), ("llama-3.1-70b", 327_680)),
        *(("llama-3.1-8b", 131_072), ("llama-2-7b", 524_288), ("deepseek-67b", 389_120)),
    ],
)
def test_caches_have_their_published_sizes(name, size):
    run = runs().get(name)
    is_preset = run is None or run.cache is None
    assert (cache_bytes_per_token(PRESETS[name]) if is_preset else cache_bytes(run)) == size


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        *(("llama-7b", 135), ("llama-65b", 149), ("llama-2-70b", 134), ("llama-3.1-8b", 138)),
        *(("llama-3.1-405b", 341), ("deepseek-67b", 374), ("deepseek-v2", 203), ("deepseek-v3", 343)),
        *(("llama-4-maverick", 262), ("olmo-3-7b", 308), ("olmo-3-32b", 281)),
    ],
)
def test_utilisation_follows_from_what_was_published(name, tflops):
    assert runs()[name].achieved_flops_per_s == pytest.approx(tflops * 1e12, abs=0.7e12)


def test_leaving_one_out_is_off_by_30_percent_at_most_and_outliers_are_declared():
    errors = [error for name in class_names() for error in leave_one_out(name).values()]
    assert len(errors) == 7 + 5 + 3
    assert max(map(abs, errors)) < 0.30
    assert {run.name for run in runs().values() if run.outlier} == {"llama-3.1-8b", "deepseek-v3"}
    assert utilisation_class("A100 dense").share == pytest.approx(0.43, abs=0.01)
    assert utilisation_class("Hopper MoE").share == pytest.approx(0.23, abs=0.01)
    assert "no prediction" in utilisation_class("V3 in FP8").assumption


def test_the_moe_class_would_have_said_half_as_many_hours_again_for_v3():
    v3 = runs()["deepseek-v3"]
    hours = utilisation_class("Hopper MoE").hours(6 * v3.active * v3.tokens, 989e12)
    assert hours / v3.pretraining_hours == pytest.approx(1.5, abs=0.05)


def test_the_service_of_a_day_takes_226_9_nodes():
    count = nodes(SERVICE)
    assert round(count["reading"], 1) == 95.5
    assert round(count["writing"], 1) == 131.4
    assert round(count["total"], 1) == 226.9


def test_the_service_of_a_day_has_a_margin_of_545_percent():
    figures = serving()
    result = day(figures["revenue"], figures["nodes"], 2.0, 8)
    assert result["cost"] == 87_072
    assert f"{result['margin']:.0%}" == "545%"
    earned = income(342e9, 608e9 - 342e9, 168e9, figures["per_million"])
    assert earned == pytest.approx(figures["revenue"], rel=0.001)


def test_the_same_load_by_flops_alone_comes_to_the_published_nodes():
    rows = smallest(V3, SERVICE, published_shares(V3), weight_bytes=weight_bytes(V3, bytes_per_weight=1))
    (h800,) = (row for row in rows if row["hardware"] == "H800")
    assert h800["by_flops"] / 8 == pytest.approx(226.9, abs=0.05)
    assert h800["by_memory"] < h800["by_flops"]


def test_a_small_load_of_a_large_model_is_a_question_of_memory():
    load = Load(input_per_s=10, output_per_s=5)
    rows = smallest(V3, load, published_shares(V3), weight_bytes=weight_bytes(V3, bytes_per_weight=1))
    assert [row["devices"] for row in rows if row["hardware"] == "H200"] == [6]
    assert rows[0]["hardware"] == "H200"
    assert rows[0]["by_memory"] > rows[0]["by_flops"]


def test_hardware_that_there_is_not():
    with pytest.raises(ConfigError, match="choose from A100, H100, H800, H200"):
        hardware("TPU")
