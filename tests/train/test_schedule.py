import math
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import ConfigError
from shoestring.train.schedule import (
    ScheduleConfig,
    batch_rows,
    bias_speed,
    learning_rate_share,
    mtp_weight,
    phase,
    warmup_cosine_share,
    warmup_share,
)

V3 = ScheduleConfig()
shares = st.floats(0.0, 1.0)


@st.composite
def schedules(draw):
    """Any schedule that is allowed, empty phases and the ends included."""
    ends = sorted(draw(st.lists(st.one_of(shares, st.sampled_from([0.0, 0.5, 1.0])), min_size=4, max_size=4)))
    names = ("warmup_ratio", "constant_until", "cosine_until", "tail_from")
    rest = ("min_lr_ratio", "tail", "batch_start", "batch_ramp_until", "bias_until", "mtp_drop_at")
    return ScheduleConfig(**dict(zip(names, ends, strict=True)), **{name: draw(shares) for name in rest})


def trillions(tokens: float) -> float:
    return tokens / 14.8


# DeepSeek-V3, section 4.2: 2.2e-4 until 10T tokens, down to 2.2e-5 over 4.3T, kept for 333B, then 7.3e-6.
@pytest.mark.parametrize(
    ("tokens", "rate"),
    [
        (0.0, 0.0),
        (0.001 * 14.8, 1.1e-4),
        (0.002 * 14.8, 2.2e-4),
        (5.0, 2.2e-4),
        (10.0, 2.2e-4),
        (12.15, 1.21e-4),
        (14.3, 2.2e-5),
        (14.632, 2.2e-5),
        (14.634, 7.3e-6),
        (14.8, 7.3e-6),
    ],
)
def test_learning_rate_at_v3s_boundaries(tokens, rate):
    assert 2.2e-4 * learning_rate_share(trillions(tokens), V3) == pytest.approx(rate, rel=2e-3)


@pytest.mark.parametrize(
    ("tokens", "rows"), [(0.0, 3072), (0.2345, 9216), (0.469, 15360), (10.0, 15360), (14.8, 15360)]
)
def test_batch_at_v3s_boundaries(tokens, rows):
    assert batch_rows(trillions(tokens), 15360, V3) == rows


def test_the_other_phases_at_v3s_boundaries():
    assert [bias_speed(trillions(t), V3) for t in (0, 14.299, 14.301)] == [0.001, 0.001, 0.0]
    assert [mtp_weight(trillions(t), V3) for t in (0, 9.999, 10.001)] == [0.3, 0.3, 0.1]
    names = [phase(trillions(t), V3) for t in (0, 0.01, 1, 10, 12, 14.5, 14.7)]
    assert names == ["warm-up", "warm-up", "constant", "constant", "cosine", "floor", "tail"]


@given(schedules(), shares)
def test_every_fraction_of_every_schedule_gives_sane_values(schedule, progress):
    assert 0.0 <= learning_rate_share(progress, schedule) <= 1.0
    assert 1 <= batch_rows(progress, 100, schedule) <= 100
    assert bias_speed(progress, schedule) in (0.0, schedule.bias_speed)
    assert mtp_weight(progress, schedule) in (schedule.mtp_weight, schedule.mtp_weight_late)
    assert phase(progress, schedule) in ("warm-up", "constant", "cosine", "floor", "tail")


@given(shares, st.floats(0.0, 1e-6))
def test_the_rate_is_continuous_but_for_the_tail(progress, distance):
    after = progress + distance
    if progress <= V3.tail_from < after:
        return
    steepest = max(1 / V3.warmup_ratio, math.pi / 2 / (V3.cosine_until - V3.constant_until))
    change = abs(learning_rate_share(after, V3) - learning_rate_share(progress, V3))
    assert change <= steepest * distance + 1e-12


@given(schedules(), shares, shares)
def test_the_rate_rises_in_the_warm_up_and_falls_in_the_cosine(schedule, one, other):
    early, late = sorted((one, other))
    names = {phase(early, schedule), phase(late, schedule)}
    rates = [learning_rate_share(p, schedule) for p in (early, late)]
    if names == {"warm-up"}:
        assert rates == sorted(rates)
    elif names <= {"constant", "cosine", "floor"}:
        assert rates[0] >= rates[1] - 1e-12


@given(schedules(), shares, shares, st.integers(1, 8), st.integers(1, 50))
def test_the_batch_only_grows_and_divides_among_ranks(schedule, one, other, ranks, per_rank):
    full = ranks * per_rank
    rows = [batch_rows(p, full, schedule, multiple=ranks) for p in sorted((one, other))]
    assert 0 < rows[0] <= rows[1] <= full
    assert not any(count % ranks for count in rows)


def test_without_a_warm_up_the_first_step_has_the_full_rate():
    assert learning_rate_share(0.0, replace(V3, warmup_ratio=0.0)) == 1.0
    assert learning_rate_share(1e-9, replace(V3, warmup_ratio=0.0)) == 1.0
    assert phase(0.1, replace(V3, warmup_ratio=0.0)) == "constant"


def test_a_constant_schedule_is_constant_to_its_last_step():
    constant = ScheduleConfig(warmup_ratio=0.0, constant_until=1.0, cosine_until=1.0, tail_from=1.0)
    assert [learning_rate_share(p, constant) for p in (0.0, 0.5, 1.0)] == [1.0, 1.0, 1.0]
    to_the_end = ScheduleConfig(constant_until=0.5, cosine_until=1.0, tail_from=1.0)
    assert learning_rate_share(1.0, to_the_end) == pytest.approx(V3.min_lr_ratio)


def test_an_empty_ramp_is_the_full_batch():
    assert batch_rows(0.0, 7, replace(V3, batch_ramp_until=0.0)) == 7
    assert batch_rows(0.0, 7, replace(V3, batch_start=0.0)) == 1


@pytest.mark.parametrize("name", [field.name for field in fields(ScheduleConfig)])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_value_outside_its_range_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=rf"schedule\.{name} = "):
        replace(V3, **{name: value})


def test_phases_out_of_order_are_refused():
    with pytest.raises(ConfigError, match="warmup_ratio <= constant_until <= cosine_until <= tail_from"):
        ScheduleConfig(warmup_ratio=0.8, constant_until=0.5)


@pytest.mark.parametrize(("steps", "warmup", "floor"), [(40, 5, 0.1), (4, 0, 0.0), (3, 9, 0.5), (1, 0, 1.0)])
def test_a_rise_and_a_cosine_in_steps(steps, warmup, floor):
    """Reinforcement's learning rate, written out: the numbers must stay these."""
    for step in range(steps):
        if step < warmup:
            expected = (step + 1) / (warmup + 1)
        else:
            fraction = min((step - warmup) / max(steps - warmup, 1), 1.0)
            expected = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * fraction))
        assert warmup_cosine_share(step, steps=steps, warmup_steps=warmup, min_ratio=floor) == expected


def test_a_rise_alone():
    """On-policy distillation's."""
    assert [warmup_share(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [warmup_share(step, 0) for step in range(2)] == [1.0, 1.0]
    assert [warmup_share(step, 3) for step in range(4)] == [(step + 1) / 3 for step in range(3)] + [1.0]
