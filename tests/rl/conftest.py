"""Tiny model folders that can be talked to, a fake teacher and a fake verifier."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shoestring.device import Runtime
from shoestring.engine.remote import Answer
from shoestring.model.folder import save_model
from shoestring.model.presets import TINY
from shoestring.model.transformer import Transformer, initialise
from shoestring.tasks.task import Example
from shoestring.tasks.verify import Verdict
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat_deepseek import DeepSeekTemplate

COIN = """
from dataclasses import dataclass
from shoestring.tasks.task import Example

@dataclass(frozen=True)
class Coin:
    name = "coin"
    is_pure = PURE

    def examples(self, split, seed):
        n = seed
        while True:
            n += 1
            yield Example(key=str(n), question=f"{n % 7}+{n % 5}=?", answer=n)

    def reward(self, example, text):
        return REWARD
"""


@pytest.fixture(scope="session")
def coin_source():
    """Text of the task module `coin_task`, whose reward is an expression of `text` and `example`."""

    def make(reward: str, pure: bool = True) -> str:
        return COIN.replace("REWARD", reward).replace("PURE", str(pure))

    return make


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    return Runtime(device=torch.device("cpu"), compute_dtype=torch.float32)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """Makes a folder with a random tiny model of a seed, its tokenizer and DeepSeek's template."""

    def make(seed: int, texts=("1+2=3 so 4*5=20",), **changes) -> Path:
        root = tmp_path_factory.mktemp("model")
        words = root / "words"
        words.mkdir()
        tokenizer = Tokenizer.train(texts, 320)
        tokenizer.save(words)
        DeepSeekTemplate().save(words)
        ends = {
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": tokenizer.pad_id,
        }
        shape = replace(TINY, vocab_size=320, initializer_range=0.2, **ends, **changes)
        model = initialise(Transformer(shape), torch.Generator().manual_seed(seed))
        save_model(model, root / "model", tokenizer_files=words, name=f"tiny {seed}")
        return root / "model"

    return make


@pytest.fixture(scope="session")
def teacher_folder(model_folder) -> Path:
    return model_folder(1)


@pytest.fixture(scope="session")
def student_folder(model_folder) -> Path:
    return model_folder(2)


class Numbers:
    """Problem i asks for i; an answer that ends in it is right."""

    is_pure = True
    name = "numbers"

    def __init__(self, count=5):
        self.count = count

    def examples(self, split, seed):
        while True:
            yield from (Example(key=str(i), question=f"number {i}?", answer=i) for i in range(self.count))

    def reward(self, example, text):
        return float(text.endswith(str(example.answer)))


class FakeTeacher:
    """Says what `say(ask, k)` returns for answer k of an ask; stops the whole thing after `stop_after`."""

    def __init__(self, say, *, stop_after=None, error=None, price=0.0):
        self.name, self.spent, self.asked = "fake", 0.0, []
        self._say, self._left, self._error, self._price = say, stop_after, error, price

    def answers(self, asks):
        for ask in asks:
            for k in range(ask.start, ask.start + ask.n):
                if self._left == 0:
                    raise self._error or KeyboardInterrupt
                self._left = self._left and self._left - 1
                self.asked.append((ask.id, k))
                self.spent += self._price
                said = self._say(ask, k)
                answer = (
                    said if isinstance(said, Answer) else Answer(id=ask.id, text=said, finish_reason="stop")
                )
                yield replace(answer, cost=self._price)
            yield None


class FakeVerifier:
    """Judges at once by `task.reward`, or says the fault that `faulty(text)` names."""

    def __init__(self, task, faulty=lambda text: None):
        self.task, self.faulty, self.faults, self.judged, self._ready = task, faulty, {}, [], []
        self.share = 0.0

    def submit(self, ticket, task_name, example, text):
        fault = self.faulty(text)
        self.judged.append(text)
        reward = None if fault else self.task.reward(example, text)
        self._ready.append(Verdict(ticket=ticket, reward=reward, fault=fault))

    def results(self, wait):
        ready, self._ready = self._ready, []
        return ready

    def fault_share(self):
        return self.share


@pytest.fixture
def numbers():
    return Numbers


@pytest.fixture
def fake_teacher():
    return FakeTeacher


@pytest.fixture
def fake_verifier():
    return FakeVerifier
