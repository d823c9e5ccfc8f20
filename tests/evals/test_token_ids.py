"""Scores of token ids, by torch's own cross-entropy."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from shoestring.errors import ConfigError
from shoestring.evals.perplexity import TextEvalConfig
from shoestring.evals.token_ids import score_ids
from shoestring.model.presets import TINY
from shoestring.model.transformer import Transformer, initialize


@pytest.fixture(scope="module")
def model() -> Transformer:
    config = replace(TINY, num_nextn_predict_layers=0, initializer_range=0.2)
    return initialize(Transformer(config), torch.Generator().manual_seed(0)).eval()


def direct(model: Transformer, rows: list[list[int]]) -> float:
    with torch.no_grad():
        sums = [
            F.cross_entropy(model(torch.tensor([row[:-1]]))[0], torch.tensor(row[1:]), reduction="sum")
            for row in rows
        ]
    return float(sum(sums)) / sum(len(row) - 1 for row in rows)


def test_each_token_is_predicted_once(model, tmp_path):
    rows = [[1, 2, 3, 4, 5, 6], [7, 8, 9], [10]]
    (tmp_path / "ids").write_text("\n".join(" ".join(map(str, row)) for row in rows))
    config = TextEvalConfig(sources=(str(tmp_path / "ids"),))
    result = score_ids(model, config)
    assert result["tokens"] == 7
    assert result["nll_per_token"] == pytest.approx(direct(model, rows[:2]), rel=1e-5)
    windows = score_ids(model, replace(config, seq_len=3))
    assert windows["nll_per_token"] == pytest.approx(
        direct(model, [[1, 2, 3, 4], [4, 5, 6], [7, 8, 9]]), rel=1e-5
    )
    assert score_ids(model, replace(config, max_tokens=6))["tokens"] == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 x", "'x' is none"),
        ("1 256", "256 is not below 256"),
        ("7\n8", "two token ids or more"),
        ("-1 2", "'-1' is"),
    ],
)
def test_other_texts_are_refused(model, tmp_path, text, words):
    (tmp_path / "ids").write_text(text)
    with pytest.raises(ConfigError, match=words):
        score_ids(model, TextEvalConfig(sources=(str(tmp_path / "ids"),)))


def test_a_limit_of_bits_per_byte_is_refused(model):
    with pytest.raises(ConfigError, match="has no bytes"):
        score_ids(model, TextEvalConfig(sources=("x",), below=2.0))
