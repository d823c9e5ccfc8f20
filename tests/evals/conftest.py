"""A tiny model with a tokenizer and a chat template, and the engine around it."""

from dataclasses import replace

import pytest
import torch

from shoestring.engine.engine import Engine
from shoestring.engine.llm import LLM
from shoestring.engine.settings import EngineSettings
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.presets import TINY
from shoestring.model.transformer import Transformer, initialize
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate

TEXTS = ["7*8-12+5=? The answer is 49, since 56-12+5 is 49.\n", "What is 3 + 4? Seven.\n"]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 300)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, tokenizer):
    """Where the tokenizer and our template lie."""
    folder = tmp_path_factory.mktemp("words")
    tokenizer.save(folder)
    DeepSeekTemplate().save(folder)
    return folder


@pytest.fixture(scope="session")
def model(tokenizer) -> Transformer:
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    config = replace(TINY, vocab_size=tokenizer.vocab_size, initializer_range=0.2, **ids)
    return initialize(Transformer(config), torch.Generator().manual_seed(1)).eval()


@pytest.fixture
def llm(model, tokenizer, folder) -> LLM:
    return LLM.of(Engine(model, tokenizer, EngineSettings(max_model_len=128)), Checkpoint.open(folder))
