"""Schedules: learning rate, batch size, balance bias and MTP weight as functions of a run's progress.

DeepSeek-V3's phases are functions of progress (tokens so far / token budget), others of the step's number.

A step takes the learning rate of its end, as (step + 1) / warm-up steps does: with that of its beginning, the
first step would have rate zero and waste its tokens. So the phases of the learning rate include their end.
Everything else is taken from the beginning of the step, and those phases do not include their end.
"""

import math
from dataclasses import dataclass

from shoestring.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Phases as fractions of the token budget; defaults are DeepSeek-V3's (arXiv 2412.19437, section 4.2)."""

    warmup_ratio: float = 0.002
    """Learning rate rises linearly until here (V3: 2,000 steps)."""
    constant_until: float = 10.0 / 14.8
    cosine_until: float = 14.3 / 14.8
    """The cosine reaches `min_lr_ratio` here."""
    min_lr_ratio: float = 0.1
    """Learning rate after the cosine, as a share of the peak (V3: 2.2e-5 of 2.2e-4)."""
    tail_from: float = 14.633 / 14.8
    tail: float = 0.0332
    """Share of the peak in the last part (V3: 7.3e-6)."""
    batch_start: float = 0.2
    """Batch at the start as a share of the full one (V3: 3,072 of 15,360 sequences)."""
    batch_ramp_until: float = 0.469 / 14.8
    bias_speed: float = 0.001
    """Step of the balance bias (auxiliary-loss-free balancing)."""
    bias_until: float = 14.3 / 14.8
    mtp_weight: float = 0.3
    mtp_weight_late: float = 0.1
    mtp_drop_at: float = 10.0 / 14.8

    def __post_init__(self) -> None:
        order = ("warmup_ratio", "constant_until", "cosine_until", "tail_from")
        shares = (
            *order,
            "min_lr_ratio",
            "tail",
            "batch_start",
            "batch_ramp_until",
            "bias_until",
            "mtp_drop_at",
        )
        for name in shares:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"schedule.{name} = {getattr(self, name)} is not between 0 and 1")
        ends = [getattr(self, name) for name in order]
        if ends != sorted(ends):
            raise ConfigError(f"schedule: {' <= '.join(order)} does not hold for {ends}")
        for name in ("bias_speed", "mtp_weight", "mtp_weight_late"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"schedule.{name} = {getattr(self, name)} is not a number of at least 0")


def warmup_share(step: int, warmup_steps: int) -> float:
    """Learning rate of step `step` (from 0), as a share of its peak: a linear rise, then the peak."""
    return min((step + 1) / max(warmup_steps, 1), 1.0)


def cosine_share(fraction: float, min_ratio: float) -> float:
    """Learning rate `fraction` of the way from its peak down to `min_ratio`, as a share of its peak."""
    return min_ratio + (1.0 - min_ratio) * 0.5 * (1.0 + math.cos(math.pi * fraction))


def warmup_cosine_share(step: int, *, steps: int, warmup_steps: int, min_ratio: float) -> float:
    """Learning rate of step `step` (from 0) of `steps`: a linear rise, then a cosine.

    Step `warmup_steps` is the first at the peak; the cosine ends at `min_ratio`.
    """
    if step < warmup_steps:
        return warmup_share(step, warmup_steps + 1)
    return cosine_share(min((step - warmup_steps) / max(steps - warmup_steps, 1), 1.0), min_ratio)


def learning_rate_share(progress: float, schedule: ScheduleConfig) -> float:
    """Learning rate of the step that ends at `progress`, as a share of its peak, by DeepSeek-V3's phases."""
    if progress < schedule.warmup_ratio:
        return progress / schedule.warmup_ratio
    if progress <= schedule.constant_until:
        return 1.0
    if progress <= schedule.cosine_until:
        length = schedule.cosine_until - schedule.constant_until
        return cosine_share((progress - schedule.constant_until) / length, schedule.min_lr_ratio)
    return schedule.min_lr_ratio if progress <= schedule.tail_from else schedule.tail


def batch_rows(progress: float, full_rows: int, schedule: ScheduleConfig, *, multiple: int = 1) -> int:
    """Sequences in the next step: from `batch_start` of the full batch up to all of it.

    `full_rows` is a multiple of `multiple`, the number of ranks, and so is the result.
    """
    if progress >= schedule.batch_ramp_until:
        return full_rows
    share = schedule.batch_start + (1.0 - schedule.batch_start) * progress / schedule.batch_ramp_until
    return max(1, round(full_rows * share / multiple)) * multiple


def bias_speed(progress: float, schedule: ScheduleConfig) -> float:
    """Step of the balance bias: constant, then zero."""
    return schedule.bias_speed if progress < schedule.bias_until else 0.0


def mtp_weight(progress: float, schedule: ScheduleConfig) -> float:
    """Weight of the multi-token-prediction loss: high, then low."""
    return schedule.mtp_weight if progress < schedule.mtp_drop_at else schedule.mtp_weight_late


def phase(progress: float, schedule: ScheduleConfig) -> str:
    """Name of the learning-rate phase, for the display and the log."""
    ends = [
        (schedule.warmup_ratio, "warm-up"),
        (schedule.constant_until, "constant"),
        (schedule.cosine_until, "cosine"),
        (schedule.tail_from, "floor"),
    ]
    return next((name for end, name in ends if progress <= end), "tail")
