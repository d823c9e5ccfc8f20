"""Scores of continuations: their log-probability after a prompt, from prompt logprobs of both together."""

from collections.abc import Sequence
from dataclasses import replace

from shoestring.errors import ConfigError
from shoestring.outputs import RequestOutput, ScoringOutput, ScoringRequestOutput
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.prompts import Prompt


def continued(
    contexts: Sequence[Prompt], texts: Sequence[str], tokenizer: Tokenizer
) -> tuple[list[Prompt], list[int]]:
    """Each context with its continuation, and the continuations' lengths; one context goes with all.

    Raises ConfigError when their numbers differ, for an empty continuation and for an empty context.
    """
    contexts = [*contexts] * len(texts) if len(contexts) == 1 else contexts
    if len(contexts) != len(texts):
        raise ConfigError(f"score has {len(contexts)} first texts for {len(texts)} second ones")
    if wrong := [text for text in texts if not isinstance(text, str) or not text]:
        raise ConfigError(f"score has a second text {wrong[0]!r}; each must be text that is not empty")
    if not all(context.token_ids for context in contexts):
        raise ConfigError("score has an empty first text, and this tokenizer has no begin token")
    rows = tokenizer.encode_batch(texts, continues=True)
    prompts = [
        replace(context, token_ids=(*context.token_ids, *ids), text=None)
        for context, ids in zip(contexts, rows, strict=True)
    ]
    return prompts, [len(ids) for ids in rows]


def score(output: RequestOutput, count: int) -> ScoringRequestOutput:
    """The score of the last `count` tokens of a prompt. Raises ConfigError for a request that failed."""
    if output.outputs[0].finish_reason == "error":
        raise ConfigError(f"a text cannot be scored: {output.outputs[0].stop_reason}")
    ids = output.prompt_token_ids
    entries = (output.prompt_logprobs or [])[len(ids) - count :]
    logprobs = [entry[i].logprob for entry, i in zip(entries, ids[-count:], strict=True) if entry is not None]
    return ScoringRequestOutput(
        request_id=output.request_id,
        outputs=ScoringOutput(score=sum(logprobs), token_logprobs=logprobs),
        prompt_token_ids=ids,
    )
