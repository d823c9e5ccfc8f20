"""Micro-batches: each prompt once, no padding, and answers whose prompts were routed otherwise apart."""

from types import SimpleNamespace

import torch

from shoestring.data.packing import IGNORE_INDEX
from shoestring.rl.losses import PolicyLossConfig
from shoestring.rl.micro_batches import micro_batches
from shoestring.rl.rollout import Answer
from shoestring.tasks.task import Example, Problem

PROBLEM = Problem(task="coin", example=Example(key="1", question="?", answer=1))
MODEL = SimpleNamespace(config=SimpleNamespace(moe_layers=(1, 2)), device=torch.device("cpu"))


def answer(
    prompt: tuple[int, ...], tokens: tuple[int, ...], advantage: float = 1.0, first: int = 0
) -> Answer:
    """An answer whose tokens all had the experts of their own number, but the prompt's first one `first`."""
    experts = torch.tensor((*prompt, *tokens))[:-1, None, None].repeat(1, 2, 2).to(torch.int16)
    experts[0] = first
    return Answer(
        problem=PROBLEM,
        prompt_ids=prompt,
        token_ids=tokens,
        logprobs=(-1.0,) * len(tokens),
        text="",
        is_truncated=False,
        advantage=advantage,
        experts=experts,
    )


def batches(answers, micro_tokens=1000, **loss):
    config = SimpleNamespace(loss=PolicyLossConfig(**loss), micro_tokens=micro_tokens)
    return list(micro_batches(answers, config, MODEL))


def test_a_prompt_goes_through_the_model_once():
    answers = [answer((1, 2, 3), (4, 5, 6)), answer((7, 8), (9,)), answer((1, 2, 3), (5, 4))]
    [batch] = batches(answers)
    assert batch.ids_N.tolist() == [1, 2, 3, 4, 5, 5, 7, 8]
    assert batch.positions_N.tolist() == [0, 1, 2, 3, 4, 3, 0, 1]
    assert batch.segments_S2.tolist() == [[3, 0], [2, 1], [1, 1], [2, 0], [0, 1]]
    assert batch.targets_BT.tolist() == [[4, 5, 6], [5, 4, IGNORE_INDEX], [9, IGNORE_INDEX, IGNORE_INDEX]]
    assert batch.sources_BT[0].tolist() == [2, 3, 4]
    assert batch.sources_BT[1, :2].tolist() == [2, 5]
    assert batch.sources_BT[2, :1].tolist() == [7]
    assert batch.experts[1][:, 0].tolist() == [0, 2, 3, 4, 5, 5, 0, 8]
    assert torch.equal(batch.mask_BT, batch.targets_BT != IGNORE_INDEX)


def test_a_prompt_with_other_experts_is_apart():
    [batch] = batches([answer((1, 2), (3, 4)), answer((1, 2), (5, 6), first=7)])
    assert batch.ids_N.tolist() == [1, 2, 3, 1, 2, 5]
    assert batch.experts[2][:, 1].tolist() == [0, 2, 3, 7, 2, 5]


def test_a_group_that_is_cut_reads_its_prompt_again():
    parts = batches([answer((1, 2, 3), (4, 5, 6 + n)) for n in range(5)], micro_tokens=7)
    assert [part.num_tokens for part in parts] == [7, 7, 5]
    assert [len(part.targets_BT) for part in parts] == [2, 2, 1]
    assert all(part.segments_S2[0].tolist() == [3, 0] for part in parts)


def test_one_answer_may_be_longer_than_a_part():
    assert [part.num_tokens for part in batches([answer((1, 2), (3, 4, 5))] * 2, micro_tokens=2)] == [4, 4]


def test_answers_without_a_gradient_are_left_out():
    answers = [answer((1, 2), (3, 4), advantage=0.0), answer((1, 2), (5, 6))]
    assert [part.ids_N.tolist() for part in batches(answers)] == [[1, 2, 5]]
    assert [part.ids_N.tolist() for part in batches(answers, beta=0.1)] == [[1, 2, 3, 5]]
    assert batches(answers[:1]) == []
