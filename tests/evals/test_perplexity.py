import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from shoestring.data.corpus import DataConfig
from shoestring.data.dataset import EvaluationRows, evaluation_rows, prepare
from shoestring.data.packing import IGNORE_INDEX
from shoestring.errors import ConfigError
from shoestring.evals.perplexity import (
    TextEvalConfig,
    compare_with_references,
    heldout_bits_per_byte,
    score,
)
from shoestring.model.config import GQAConfig, ModelConfig
from shoestring.model.transformer import Transformer, initialize
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.definition import train
from shoestring.tokenizer.special import EOS

SHAPE = ModelConfig(
    model_type="llama",
    vocab_size=300,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    attention=GQAConfig(num_key_value_heads=1, head_dim=16),
    initializer_range=0.1,
)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return initialize(Transformer(SHAPE), torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    generator = np.random.default_rng(0)
    for number in range(30):
        words = generator.choice(["été", "word", "x=1", "日本"], size=int(generator.integers(20, 80)))
        (folder / f"{number}.txt").write_text(f"{number} " + " ".join(words), encoding="utf-8")
    config = DataConfig(sources=(str(folder),), heldout_fraction=0.4)
    tokenizer = Tokenizer.train((path.read_text(encoding="utf-8") for path in folder.iterdir()), 300)
    return prepare(config, tokenizer, tmp_path_factory.mktemp("cache"))


def direct(model, dataset, rows) -> tuple[float, int]:
    """Summed nats, and bytes, by torch's cross-entropy and the texts themselves."""
    with torch.no_grad():
        logits = model(torch.from_numpy(rows.inputs)).double().flatten(0, 1)
    targets = torch.from_numpy(rows.targets).flatten()
    nats = float(F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="sum"))
    texts = list(dataset.store.texts("heldout"))
    return nats, sum(len(texts[number].encode()) for number in rows.documents)


@pytest.mark.parametrize("seq_len", [7, 32, 500])
def test_bits_per_byte_equal_a_direct_computation(model, dataset, seq_len):
    rows = evaluation_rows(dataset.heldout, seq_len=seq_len)
    found = score(model, rows)
    nats, utf8_bytes = direct(model, dataset, rows)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / utf8_bytes, rel=1e-5)
    assert found.utf8_bytes == utf8_bytes
    assert found.documents == len(rows.documents) > 3
    assert found.nll_per_token == pytest.approx(nats / found.tokens, rel=1e-5)
    # Every id of a document and its end is predicted once.
    assert found.tokens == sum(len(dataset.heldout.document(n)) + 1 for n in rows.documents)


@pytest.mark.parametrize("rows_at_once", [1, 3, 1000])
def test_rows_at_once_change_nothing_but_memory(model, dataset, rows_at_once):
    rows = evaluation_rows(dataset.heldout, seq_len=32)
    same = score(model, rows, rows_at_once=rows_at_once).bits_per_byte
    assert same == pytest.approx(score(model, rows).bits_per_byte, rel=1e-6)


def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_vocabulary(dataset):
    blank = Transformer(SHAPE)
    with torch.no_grad():
        for parameter in blank.parameters():
            parameter.zero_()
    found = score(blank, evaluation_rows(dataset.heldout, seq_len=32))
    assert found.nll_per_token == pytest.approx(math.log(300), rel=1e-6)


def test_ignored_targets_count_nothing(model):
    targets = np.full((2, 8), IGNORE_INDEX, dtype=np.int64)
    targets[0, 2] = 17
    inputs = np.arange(16).reshape(2, 8)
    rows = EvaluationRows(inputs=inputs, targets=targets, num_tokens=1, utf8_bytes=4, documents=(0,))
    with torch.no_grad():
        expected = -float(model(torch.from_numpy(inputs))[0, 2].log_softmax(-1)[17])
    found = score(model, rows)
    assert found.nll_per_token == pytest.approx(expected, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(expected / math.log(2) / 4, rel=1e-5)


def test_scoring_leaves_no_gradient_and_keeps_the_mode(model, dataset):
    model.train()
    heldout_bits_per_byte(model, dataset, seq_len=16, max_tokens=200)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_the_budget_takes_whole_documents(model, dataset):
    small = heldout_bits_per_byte(model, dataset, seq_len=16, max_tokens=200)
    assert small.tokens <= 200
    assert small.documents < heldout_bits_per_byte(model, dataset, seq_len=16, max_tokens=10**9).documents


def test_every_text_can_be_scored_and_how_many_there_are_is_said(model, dataset):
    heldout = compare_with_references(model, dataset, TextEvalConfig(seq_len=32))
    first = compare_with_references(model, dataset, TextEvalConfig(seq_len=32, max_tokens=200))
    whole = compare_with_references(model, dataset, TextEvalConfig(seq_len=32, split="all", max_tokens=0))
    assert whole["documents"] == whole["documents_there"] == 30
    assert whole["utf8_bytes"] == whole["utf8_bytes_there"]
    assert first["documents"] < first["documents_there"] == heldout["documents"] < 30
    parts = [score(model, evaluation_rows(shard, seq_len=32)) for shard in (dataset.train, dataset.heldout)]
    bits = sum(part.bits_per_byte * part.utf8_bytes for part in parts)
    assert ("primer_bytes" in heldout, "primer_bytes" in whole) == (True, False)
    assert whole["bits_per_byte"] == pytest.approx(bits / whole["utf8_bytes"])


@pytest.mark.parametrize("changes", [{"split": "train"}, {"max_tokens": -1}, {"seq_len": 0}])
def test_wrong_settings_are_named(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        TextEvalConfig(**changes)


@pytest.mark.parametrize("adds_bos", [None, True, False])
def test_without_a_begin_token_the_first_id_is_predicted_from_the_end_token(
    model, dataset, tmp_path, adds_bos
):
    """As lm-evaluation-harness does; `add_bos_token` may be true although there is none to add."""
    texts = list(dataset.store.texts("heldout"))
    tokenizer = Tokenizer(train(texts, 300, 2), {"eos_token": EOS}, adds_bos=adds_bos)
    for number, text in enumerate(texts * 3):
        (tmp_path / f"{number}.txt").write_text(f"{number} {text}", encoding="utf-8")
    config = DataConfig(sources=(str(tmp_path),), heldout_fraction=0.4, fim_rate=0.0)
    own = prepare(config, tokenizer, tmp_path / "cache")
    rows = evaluation_rows(own.heldout, seq_len=64)
    assert rows.inputs[0, 0] == tokenizer.eos_id
    assert rows.targets[0, 0] == own.heldout.document(0)[0]
    nats, utf8_bytes = direct(model, own, rows)
    found = score(model, rows)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / utf8_bytes, rel=1e-5)
    assert found.tokens == sum(len(own.heldout.document(n)) + 1 for n in rows.documents)
