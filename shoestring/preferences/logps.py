"""Log-probabilities of answers under a model, and under the reference: computed once, stored in the run."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from shoestring import kernels
from shoestring.durable import write_atomic
from shoestring.errors import CheckpointError
from shoestring.model.lora import adapters_off
from shoestring.model.transformer import Transformer
from shoestring.preferences.data import Preferences, mismatched, padded
from shoestring.train.losses import MicroBatch

log = logging.getLogger(__name__)

FILE = "reference.json"
SAY_EVERY_S = 10.0


class Reference(NamedTuple):
    """Log-probabilities under the model that the run starts from."""

    logp: Tensor
    """Of every answer (answers,), float32."""
    mismatched_logp: Tensor
    """Of each unit's mismatched answer (units,), for KTO; else empty."""


def answer_logprobs(model: Transformer, rows: MicroBatch) -> Tensor:
    """Sums of the log-probabilities of the rows' tokens under the loss mask (B,), float32, with gradient."""
    at_N = rows.labels_BT.flatten().ge(0).nonzero()[:, 0]
    hidden_ND = model.features(rows.inputs_BT).hidden_BTD.flatten(0, 1)[at_N]
    logp_N = kernels.token_logprobs(hidden_ND, model.head_weight_WD, rows.targets_BT.flatten()[at_N])
    logp = torch.zeros(rows.targets_BT.numel(), device=logp_N.device).index_copy(0, at_N, logp_N)
    return logp.view_as(rows.targets_BT).sum(1)


@torch.no_grad()
def mismatched_logprobs(
    model: Transformer, data: Preferences, units: Sequence[int], micro_tokens: int
) -> Tensor:
    """Log-probabilities of the units' prompts with others' answers (B,), for KTO, without gradient."""
    answers = mismatched(data, units)
    rows = max(1, micro_tokens // max(len(answer.ids) for answer in answers))
    parts = [answers[start : start + rows] for start in range(0, len(answers), rows)]
    return torch.cat([answer_logprobs(model, padded(part, model.device)) for part in parts])


@torch.no_grad()
def compute_reference(
    model: Transformer,
    data: Preferences,
    batches: Sequence[Sequence[int]],
    *,
    micro_tokens: int,
    with_mismatched: bool,
    say: Callable[[str], None],
) -> Reference:
    """The reference of all units in `batches`, without adapters.

    They are cut as in training, so the first step's rewards are 0 to the last bits.
    """
    logp = torch.zeros(len(data.answers))
    mismatched_logp = torch.zeros(len(data) if with_mismatched else 0)
    started_s = said_s = time.monotonic()
    for count, units in enumerate(batches, start=1):
        with adapters_off(model):
            for batch in data.batches(units, micro_tokens, model.device):
                logp[batch.numbers] = answer_logprobs(model, batch.rows).cpu()
            if with_mismatched:
                mismatched_logp[units] = mismatched_logprobs(model, data, units, micro_tokens).cpu()
        if time.monotonic() - said_s > SAY_EVERY_S:
            said_s = time.monotonic()
            left_s = (said_s - started_s) / count * (len(batches) - count)
            say(f"reference: {count:,} of {len(batches):,} batches, about {left_s:.0f} s left")
    return Reference(logp, mismatched_logp)


def stored_or_computed(
    path: Path, key: str, compute: Callable[[], Reference], *, is_resumed: bool
) -> Reference:
    """The reference in the file `path`, or computed and written there at the start of a run.

    `key` says what it belongs to. Raises CheckpointError when a run that goes on has lost its own: the model
    is no longer the one that it started from.
    """
    if path.is_file():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["key"] == key:
                return Reference(*(torch.tensor(values[name]) for name in Reference._fields))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read (%s)", path, error)
    if is_resumed:
        raise CheckpointError(
            f"{path} is not the reference that this run began with; put the file, the data and the settings "
            "back as they were, or start anew in another --out"
        )
    reference = compute()
    values = {name: value.tolist() for name, value in reference._asdict().items()}
    write_atomic(path, json.dumps({"key": key, **values}))
    return reference


def reference_key(parts: Iterable[str]) -> str:
    """Hash of the data, the model and the settings that a reference belongs to."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
