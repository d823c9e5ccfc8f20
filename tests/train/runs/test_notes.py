import tomllib

import pytest

from shoestring import config as configs
from shoestring.errors import ConfigError
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.runs.notes import write_note


@pytest.fixture
def out(tmp_path):
    configs.save(PretrainConfig(seed=4, note="before", tags=("old",)), tmp_path / "config.toml")
    return tmp_path


def test_a_note_and_tags_replace_what_was_there_and_nothing_else(out):
    write_note(out, 'the rate was "too high"', [])
    assert configs.load(PretrainConfig, out / "config.toml") == PretrainConfig(
        seed=4, note='the rate was "too high"', tags=("old",)
    )
    write_note(out, None, ["b", "c"])
    recipe = configs.load(PretrainConfig, out / "config.toml")
    assert (recipe.note, recipe.tags, recipe.seed) == ('the rate was "too high"', ("b", "c"), 4)
    write_note(out, "", [])
    assert tomllib.loads((out / "config.toml").read_text())["note"] == ""


def test_refusals_are_sentences(out):
    before = (out / "config.toml").read_bytes()
    with pytest.raises(ConfigError, match="nothing to note"):
        write_note(out, None, [])
    with pytest.raises(ConfigError, match="a tag is one word"):
        write_note(out, "x", ["two words"])
    assert (out / "config.toml").read_bytes() == before
    with pytest.raises(ConfigError, match="cannot be read"):
        write_note(out / "nowhere", "x", [])
