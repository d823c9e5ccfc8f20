"""The models of this machine, and nothing beside them."""

import shutil

import pytest

from shoestring.errors import ConfigError
from shoestring.model.hf.hub import resolve
from shoestring.serve.models.places import Place, new_place, places, remove
from shoestring.serve.training.folder import RunsFolder
from tests.serve.training.folders import write_run


def test_models_are_found_where_they_are_put(model_cache, tmp_path):
    shutil.copytree(resolve("mini"), model_cache / "small")
    (model_cache / "empty").mkdir()
    (model_cache / "small.tmp-host-1").mkdir()
    (model_cache / "small.tmp-host-1" / "config.json").write_text("{}")
    (model_cache / "link").symlink_to(resolve("mini"))
    run = write_run(tmp_path / "runs" / "demo")
    shutil.copytree(resolve("mini"), run / "zero" / "model")
    (run / "base" / "model").symlink_to(resolve("mini"))
    shutil.copytree(resolve("mini"), run / "student" / "student" / "model")
    found = places(RunsFolder(run.parent))
    assert {name: place.source for name, place in found.items()} == {
        **{"mini": "package", "small": "folder", "demo/zero": "training", "demo/student": "training"},
    }
    assert found["small"].num_bytes > 1 << 20


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "/etc", "a\0", "x" * 97, "a.tmp-b", "taken"])
def test_a_new_model_has_a_name_of_its_own(model_cache, name):
    (model_cache / "taken").mkdir()
    with pytest.raises(ConfigError, match=r"no name for a model|already"):
        new_place(name)
    assert new_place("small-int4") == model_cache / "small-int4"


def test_what_was_fetched_is_erased_and_nothing_that_it_leads_to(model_cache, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("x")
    shutil.copytree(resolve("mini"), model_cache / "small")
    (model_cache / "small" / "link").symlink_to(tmp_path / "outside")
    remove(Place(name="small", folder=model_cache / "small", source="folder"))
    assert not (model_cache / "small").exists()
    assert (tmp_path / "outside" / "file").exists()


@pytest.mark.parametrize("source", ["package", "training"])
def test_what_belongs_to_others_stays(source):
    with pytest.raises(ConfigError, match="belongs to"):
        remove(Place(name="mini", folder=resolve("mini"), source=source))
    assert resolve("mini").is_dir()
