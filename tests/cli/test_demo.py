"""The demo, on a corpus and a shape that take seconds."""

import json
from dataclasses import replace

import pytest

from shoestring.cli import demo
from shoestring.config import load
from shoestring.data.corpus import DataConfig
from shoestring.train.recipe import PretrainConfig


@pytest.fixture
def small_demo(monkeypatch, texts, shape):
    def recipe(seed):
        return PretrainConfig(
            model=str(shape),
            total_tokens=4000,
            seq_len=64,
            batch_size=4,
            micro_batch_size=4,
            seed=seed,
            eval_tokens=500,
            data=DataConfig(sources=(str(texts),), heldout_fraction=0.2, drop_near_duplicates=False),
        )

    monkeypatch.setattr(demo, "demo_recipe", recipe)


def test_the_demo_trains_scores_and_completes(cli, small_demo, tmp_path):
    out = tmp_path / "demo"
    code, shown, _ = cli("demo", "--out", str(out), "--quiet")
    assert code == 0
    assert "bits per byte" in shown
    assert "xz -9" in shown
    report = json.loads((out / "report.json").read_text())
    assert report["tokens"] >= 1280
    assert report["heldout"]["bits_per_byte"] == pytest.approx(report["heldout_bits_per_byte"], rel=1e-4)
    assert len(report["completions"]) == len(demo.PROMPTS)
    assert (out / "report.html").read_text().startswith("<!doctype html")
    weights = (out / "model" / "model.safetensors").read_bytes()
    code, again, err = cli("demo", "--out", str(out), "--quiet", "--json")
    assert code == 0
    assert "done" in err
    assert json.loads(again) == report
    assert (out / "model" / "model.safetensors").read_bytes() == weights


def test_a_stopped_demo_goes_on(cli, small_demo, tmp_path, monkeypatch):
    from shoestring.train import pretrain

    out = tmp_path / "demo"
    real = pretrain.train_step

    def stop_soon(model, optimizers, inputs, targets, settings):
        if len(inputs) == 4 and (out / "config.toml").exists():
            raise KeyboardInterrupt
        return real(model, optimizers, inputs, targets, settings)

    with monkeypatch.context() as patched:
        patched.setattr(pretrain, "train_step", stop_soon)
        assert cli("demo", "--out", str(out), "--quiet")[0] == 130
    code, _, _ = cli("demo", "--out", str(out), "--quiet")
    assert code == 0
    assert (out / "report.json").is_file()


def test_the_recipe_in_the_folder_is_the_demos(repository):
    assert load(PretrainConfig, repository / "recipes" / "demo.toml") == demo.demo_recipe(0)


def test_every_recipe_loads(repository):
    recipes = sorted((repository / "recipes").glob("*.toml"))
    assert recipes
    for recipe in recipes:
        assert load(PretrainConfig, recipe) == replace(load(PretrainConfig, recipe))
