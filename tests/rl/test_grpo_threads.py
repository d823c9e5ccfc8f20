"""Reinforcement in which the number of threads changes all the time: sampling and update keep their bits."""

from itertools import cycle

import pytest
import torch
from safetensors.torch import load_file

from shoestring.rl import grpo as training
from shoestring.rl.recipe import GRPOConfig, PolicyOptim, TaskShare
from shoestring.tasks import load
from shoestring.threads import Threads


@pytest.fixture
def train(coin_source, student_folder, tmp_path, monkeypatch, runtime):
    """Trains with one thread after another of these numbers; returns the weights."""
    (tmp_path / "coin_of_threads.py").write_text(
        coin_source("float('1' in text)", True, "f'{n % 7}+{n % 5}=?'")
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(load.TASKS, "coin", "coin_of_threads:Coin")
    monkeypatch.setattr(training, "measure_peak", lambda _: 1e9)
    before = torch.get_num_threads()

    def run(*numbers: int):
        threads = cycle(numbers)
        monkeypatch.setattr(Threads, "follow", lambda _: torch.set_num_threads(next(threads)))
        config = GRPOConfig(
            model=str(student_folder),
            tasks=(TaskShare(name="coin"),),
            steps=3,
            num_prompts=3,
            num_generations=4,
            max_tokens=8,
            micro_tokens=64,
            optim=PolicyOptim(lr=3e-3),
        )
        out = tmp_path / "-".join(map(str, numbers))
        training.grpo(config, runtime, out, quiet=True)
        return load_file(out / "model" / "model.safetensors")

    yield run
    torch.set_num_threads(before)


def test_the_number_of_threads_changes_no_weight(train):
    alone, changing = train(1), train(2, 1, 3)
    assert alone.keys() == changing.keys()
    assert all(torch.equal(alone[name], changing[name]) for name in alone)
