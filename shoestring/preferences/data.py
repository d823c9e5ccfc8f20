"""Encoded preferences: answers with their prompts, in pairs or judged one by one, and their batches."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shoestring.data.packing import IGNORE_INDEX
from shoestring.errors import DataError
from shoestring.train.losses import MicroBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedAnswer:
    """An answer after its prompt, as token ids."""

    ids: NDArray[np.int32]  # (tokens,): the prompt's, then the answer's
    loss_mask: NDArray[np.bool_]  # (tokens,): ids of the assistant in the answer
    prompt_tokens: int
    is_chosen: bool
    """Whether it is the better one of a pair, or desirable by itself."""

    @property
    def prompt(self) -> NDArray[np.int32]:
        """The prompt's ids."""
        return self.ids[: self.prompt_tokens]

    def after(self, prompt: NDArray[np.int32], longest: int) -> "EncodedAnswer":
        """The same answer after another prompt, cut to `longest` ids."""
        ids = np.concatenate((prompt, self.ids[self.prompt_tokens :]))[:longest]
        no_prompt = np.zeros(len(prompt), dtype=np.bool_)
        loss_mask = np.concatenate((no_prompt, self.loss_mask[self.prompt_tokens :]))[:longest]
        return EncodedAnswer(
            ids=ids, loss_mask=loss_mask, prompt_tokens=len(prompt), is_chosen=self.is_chosen
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerBatch:
    """Answers that go through the model together, as padded rows; of pairs, the chosen ones come first."""

    rows: MicroBatch
    numbers: list[int]
    """The number of each row's answer among all."""
    is_chosen_B: torch.Tensor

    @property
    def tokens_B(self) -> torch.Tensor:
        """Tokens of each answer, without the prompt."""
        assert self.rows.loss_mask_BT is not None
        return self.rows.loss_mask_BT.sum(1)


@dataclass(frozen=True)
class Preferences:
    """Encoded answers, and which of them are compared."""

    answers: Sequence[EncodedAnswer]
    units: Sequence[tuple[int, ...]]
    """Numbers of the answers of each unit: a pair, chosen and rejected, or one answer by itself."""
    manifest: Mapping[str, Any]
    """Each file with its hash and counts."""
    turn_ends: tuple[int, ...]
    """Special tokens at the end of the assistant's turns, where generation has to stop."""

    def __len__(self) -> int:
        """Number of pairs, or of answers that are judged one by one."""
        return len(self.units)

    @cached_property
    def longest(self) -> int:
        """Ids of the longest answer with its prompt."""
        return max(len(answer.ids) for answer in self.answers)

    @cached_property
    def key(self) -> str:
        """Hash of all ids, masks and labels in their order."""
        digest = hashlib.sha256()
        for answer in self.answers:
            digest.update(answer.ids.tobytes() + answer.loss_mask.tobytes() + bytes([answer.is_chosen]))
        return digest.hexdigest()

    def split(self, share: float) -> tuple[list[int], list[int]]:
        """Numbers of the units to train on and to hold out: about `share`, at least one.

        Units of one prompt are on the same side. Raises DataError if none is left to train on.
        """
        prompts = [self.answers[first].prompt.tobytes() for first, *_ in self.units]
        digests = np.array([int.from_bytes(hashlib.sha256(ids).digest()[:7]) for ids in prompts])
        limit = int(np.sort(digests)[max(1, round(share * len(self))) - 1]) if share else -1
        train, heldout = (np.flatnonzero(side).tolist() for side in (digests > limit, digests <= limit))
        if not train:
            raise DataError(f"all {len(self)} preferences would be held out; set a lower heldout_fraction")
        return train, heldout

    def tokens(self, units: Sequence[int]) -> int:
        """Inputs of the model for these units, without padding."""
        return sum(len(self.answers[number].ids) - 1 for unit in units for number in self.units[unit])

    def batches(self, units: Sequence[int], tokens: int, device: torch.device) -> Iterator[AnswerBatch]:
        """The units in padded batches of at most `tokens` inputs (or one unit), the longest first."""
        by_length = sorted(units, key=lambda unit: (-self._width(unit), unit))
        part: list[int] = []
        for unit in by_length:
            rows = (len(part) + 1) * len(self.units[unit])
            if part and rows * self._width(part[0]) > tokens:
                yield self._batch(part, device)
                part = []
            part.append(unit)
        if part:
            yield self._batch(part, device)

    def _width(self, unit: int) -> int:
        return max(len(self.answers[number].ids) for number in self.units[unit]) - 1

    def _batch(self, units: Sequence[int], device: torch.device) -> AnswerBatch:
        places = range(len(self.units[units[0]]))
        numbers = [self.units[unit][place] for place in places for unit in units]
        answers = [self.answers[number] for number in numbers]
        return AnswerBatch(
            rows=padded(answers, device),
            numbers=numbers,
            is_chosen_B=torch.tensor([answer.is_chosen for answer in answers], device=device),
        )


def padded(answers: Sequence[EncodedAnswer], device: torch.device) -> MicroBatch:
    """Answers as rows of inputs and next ids, padded on the right."""
    shape = (len(answers), max(len(answer.ids) for answer in answers) - 1)
    inputs = torch.zeros(shape, dtype=torch.int64)
    targets = torch.full(shape, IGNORE_INDEX)
    loss_mask = torch.zeros(shape, dtype=torch.bool)
    for row, answer in enumerate(answers):
        end = len(answer.ids) - 1
        inputs[row, :end] = torch.from_numpy(answer.ids[:-1])
        targets[row, :end] = torch.from_numpy(answer.ids[1:])
        loss_mask[row, :end] = torch.from_numpy(answer.loss_mask[1:])
    return MicroBatch(inputs.to(device), targets.to(device), loss_mask.to(device))


class Batches:
    """The units of each step: one random cut into batches, which every epoch takes in another order.

    So KTO's mismatched answers (`mismatched`) are the same in every epoch. The batch of a step depends on the
    seed and the step's number alone: nothing has to be saved.
    """

    def __init__(self, units: Sequence[int], size: int, *, seed: int, least: int = 1) -> None:
        order = np.random.default_rng(seed).permutation(np.array(units))
        self.all = cut(order.tolist(), size, least)
        self.seed = seed

    def of_step(self, step: int) -> list[int]:
        """Units of step `step`, from 0."""
        epoch, place = divmod(step, len(self.all))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.all))
        batch: list[int] = self.all[order[place]]
        return batch


def cut(units: Sequence[int], size: int, least: int = 1) -> list[list[int]]:
    """The units in parts of about one size: at most `size`, but at least `least` where there are so many."""
    count = max(1, min(-(-len(units) // size), len(units) // least))
    return [part.tolist() for part in np.array_split(np.array(units), count)] if units else []


def mismatched(data: Preferences, units: Sequence[int]) -> list[EncodedAnswer]:
    """Each unit's prompt with the answer of the one before it in the batch, for KTO's estimate of the KL.

    arXiv 2402.01306, section 4.1. The first prompt has the last answer; none is longer than the longest of
    the data.
    """
    answers = [data.answers[data.units[unit][0]] for unit in units]
    return [answers[place - 1].after(answer.prompt, data.longest) for place, answer in enumerate(answers)]
