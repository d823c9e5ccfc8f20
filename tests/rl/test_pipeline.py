"""Recipes of stages: the folder of another run."""

import pytest

from shoestring.errors import ConfigError
from shoestring.rl import pipeline
from shoestring.rl.stages import RecipeConfig, Stage


def test_a_run_that_began_since_the_recipe_was_read_is_not_mixed_with(runtime, tmp_path, monkeypatch):
    out, real = tmp_path / "run", pipeline.settings_of
    recipe = RecipeConfig(stages=(Stage(name="texts", corpus={"conversations": 3}),))

    def another_run_begins(*arguments):
        out.mkdir()
        (out / "config.toml").write_text("seed = 7\n")
        return real(*arguments)

    monkeypatch.setattr(pipeline, "settings_of", another_run_begins)
    with pytest.raises(ConfigError, match="already holds a run; --resume"):
        pipeline.run_recipe(recipe, runtime, out, quiet=True)
    assert (out / "config.toml").read_text() == "seed = 7\n"
