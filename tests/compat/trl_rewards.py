"""Reward functions in the forms that TRL's documentation shows; TRL itself is not needed to run them."""

import re


def reward_even(completion_ids, **kwargs):
    """Reward even token ids."""
    return [float(sum(i % 2 == 0 for i in ids)) for ids in completion_ids]


def reward_format(completions, **kwargs):
    """Reward a form of the answer, of conversational completions."""
    pattern = r"^<think>.*?</think>.*?$"
    contents = [completion[0]["content"] for completion in completions]
    return [1.0 if re.match(pattern, content, re.DOTALL) else 0.0 for content in contents]


def reward_solution(completions, ground_truth, task, log_extra=None, log_metric=None, **kwargs):
    """Reward the right value, of problems of one task; None for the others."""
    found = [re.search(r"(\d+)\D*$", completion[0]["content"]) for completion in completions]
    numbers = [match[1] if match else "" for match in found]
    if log_extra:
        log_extra("found", numbers)
    if log_metric:
        log_metric("share_with_number", sum(map(bool, numbers)) / len(numbers))
    return [
        (1.0 if number == truth else 0.0) if kind == "math" else None
        for number, truth, kind in zip(numbers, ground_truth, task, strict=True)
    ]
