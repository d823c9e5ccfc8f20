"""A finished run of pretraining, made once; every test has a copy of its own."""

import shutil
from pathlib import Path

import pytest

from shoestring.data.corpus import DataConfig
from shoestring.device import choose
from shoestring.train import pretrain as story
from shoestring.train.optim import OptimConfig
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.report.receipt import Price

WORDS = "def return class import while for in if else (x): [y] = {z} + 12 # note".split()  # noqa: SIM905


@pytest.fixture(scope="session")
def first_run(tmp_path_factory) -> tuple[Path, Path]:
    """The folder of the run, and that of its data."""
    data, out = tmp_path_factory.mktemp("corpus"), tmp_path_factory.mktemp("runs") / "run"
    for number in range(20):
        text = " ".join(WORDS[(number * 7 + i * i) % len(WORDS)] for i in range(150))
        (data / f"{number:02}.py").write_text(f"# {number}\n{text}\n")
    config = PretrainConfig(
        model="r1-mini-small",
        total_tokens=32 * 4 * 8,
        seq_len=32,
        batch_size=4,
        save_every=3,
        data=DataConfig(sources=(str(data),), heldout_fraction=0.2),
        optim=OptimConfig(name="muon"),
        price=Price(per_hour=2.0, source="a test"),
        watts=50.0,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(story, "measure_peak", lambda _: 1e9)
        story.pretrain(config, choose("cpu"), out, quiet=True)
    return out, data


@pytest.fixture
def run(first_run, tmp_path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(first_run[0], tmp_path / "run"))
