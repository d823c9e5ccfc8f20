"""Pairs of answers to sums, and a recipe that learns which are better in a second."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shoestring.preferences import trainer as story
from shoestring.preferences.losses import PreferenceLossConfig
from shoestring.preferences.recipe import PreferenceConfig, PreferenceOptim
from shoestring.train import finish


@pytest.fixture(autouse=True)
def no_slow_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "measure_peak", lambda _: 1e9)
    monkeypatch.setattr(finish.curves, "draw", lambda *_, **__: None)


def rows(count: int = 40) -> list[dict[str, str]]:
    """Prompts of different lengths; a number is preferred to words."""
    return [
        {
            "prompt": " + ".join(str(i % 7 + j) for j in range(1 + i % 4)) + f" and {i}",
            "chosen": f"{i}" + " so" * (i % 3),
            "rejected": "no " * (1 + i % 3) + f"{i}",
        }
        for i in range(count)
    ]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return path


@pytest.fixture(scope="session")
def base(model_folder: Callable[..., Path]) -> Path:
    return model_folder(3, texts=("1 + 2 and 3 so 4 no 5 6 7 8 9 0",))


@pytest.fixture
def recipe(base: Path, pairs: Path) -> Callable[..., PreferenceConfig]:
    """Makes a recipe of 9 steps: `recipe("kto", epochs=3.0)`."""

    def make(loss_type: str = "dpo", **changes: object) -> PreferenceConfig:
        settings = {
            "model": str(base),
            "data": (str(pairs),),
            "seq_len": 100,
            "epochs": 1.0,
            "batch_size": 4,
            "micro_tokens": 120,
            "eval_every": 4,
            "save_every": 3,
            "heldout_fraction": 0.1,
            "optim": PreferenceOptim(lr=1e-3),
            "loss": PreferenceLossConfig(loss_type=loss_type),
        }
        return PreferenceConfig(**settings | changes)

    return make
