"""Beam search: the sequences and their log-probabilities of plain computation on all logits."""

import itertools

import pytest
import torch

from shoestring.engine.engine import Engine, EngineSettings
from shoestring.engine.llm import LLM
from shoestring.engine.request import SamplingParams
from shoestring.errors import ConfigError
from shoestring.sampling_params import BeamSearchParams


@torch.inference_mode()
def logprobs(model, ids):
    """(T, W): each row predicts the token after it."""
    return model(torch.tensor([ids]))[0].log_softmax(-1)


@torch.inference_mode()
def naive_beams(model, prompt, params, end_ids):
    """Every beam by a whole pass through the model, and every candidate in one list."""

    def score(item):
        ids, total, _ = item
        length = len(ids) - (ids[-1] in end_ids)
        return total / length**params.length_penalty

    beams, ended = [(list(prompt), 0.0, None)], []
    for _ in range(params.max_tokens):
        candidates = []
        for ids, total, _ in beams:
            values, tokens = logprobs(model, ids)[-1].topk(2 * params.beam_width)
            for value, token in zip(values.tolist(), tokens.tolist(), strict=True):
                if token in end_ids and not params.ignore_eos:
                    row = [*ids, token] if params.include_stop_str_in_output else ids
                    ended.append((row, total + value, token))
                else:
                    candidates.append(([*ids, token], total + value, None))
        beams = sorted(candidates, key=score, reverse=True)[: params.beam_width]
    return sorted(ended + beams, key=score, reverse=True)[: params.beam_width]


@pytest.mark.parametrize(
    "settings",
    [
        {"beam_width": 1, "max_tokens": 6},
        {"beam_width": 3, "max_tokens": 5},
        {"beam_width": 4, "max_tokens": 4, "length_penalty": 0.0},
        {"beam_width": 3, "max_tokens": 5, "length_penalty": 2.0, "ignore_eos": True},
        {"beam_width": 3, "max_tokens": 5, "include_stop_str_in_output": True},
    ],
    ids=str,
)
def test_beam_search_is_the_naive_one(model, settings):
    llm = LLM.of(Engine(model, None, EngineSettings(max_num_seqs=5)))
    params, ends = BeamSearchParams(**settings), set(range(0, model.config.vocab_size, 9))
    llm.engine.eos_ids = frozenset(ends)
    outputs = llm.beam_search([[3, 9, 4], {"prompt_token_ids": [5, 6, 7, 8]}], params)
    for prompt, output in zip(([3, 9, 4], [5, 6, 7, 8]), outputs, strict=True):
        expected = naive_beams(model, prompt, params, ends)
        assert [sequence.tokens for sequence in output.sequences] == [ids for ids, _, _ in expected]
        for sequence, (_, total, end) in zip(output.sequences, expected, strict=True):
            assert sequence.cum_logprob == pytest.approx(total, abs=1e-3)
            assert sequence.stop_reason == end
            assert (sequence.finish_reason == "stop") == (end is not None)


def test_a_wide_beam_finds_the_likeliest_of_all(gqa):
    """With every token in every beam the search is exhaustive."""
    width = gqa.config.vocab_size
    best = max(
        (float(first + second), [a, b])
        for a, first in enumerate(logprobs(gqa, [3, 4])[-1])
        for b, second in itertools.islice(enumerate(logprobs(gqa, [3, 4, a])[-1]), width)
    )
    llm = LLM.of(Engine(gqa, None, EngineSettings(max_num_seqs=64)))
    llm.engine.eos_ids = frozenset()
    sequence = llm.beam_search([[3, 4]], BeamSearchParams(beam_width=128, max_tokens=2))[0].sequences[0]
    assert sequence.cum_logprob == pytest.approx(best[0], abs=1e-3)
    assert sequence.tokens == [3, 4, *best[1]]


def test_beams_end_where_the_context_ends(mla):
    llm = LLM.of(Engine(mla, None, EngineSettings(max_num_seqs=2, max_model_len=8)))
    output = llm.beam_search(
        [[3, 4, 5, 6, 7]], BeamSearchParams(beam_width=2, max_tokens=50, ignore_eos=True)
    )[0]
    assert [len(sequence.tokens) for sequence in output.sequences] == [8, 8]
    with pytest.raises(ConfigError, match="BeamSearchParams"):
        llm.beam_search([[3]], SamplingParams())
