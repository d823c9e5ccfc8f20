"""Sources: files, folders, patterns and data sets of the hub, with their splits."""

import json

import pytest

from shoestring.errors import DataError
from shoestring.rows.source import data_files, source_rows


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"name": name}) + "\n")
    return folder


def names(source, **settings):
    return [row.values["name"] for row in source_rows(str(source), **settings)]


def test_a_folder_gives_its_files_in_order_without_hidden_and_other_ones(tmp_path):
    make(tmp_path / "d", "b/1.jsonl", "a.jsonl", ".git/x.jsonl", "README.md", "dataset_info.json", "c.json")
    assert names(tmp_path / "d") == ["a.jsonl", "b/1.jsonl", "c.json"]
    assert [file.name for file in data_files(str(tmp_path / "d"))] == ["d/a.jsonl", "d/b/1.jsonl", "d/c.json"]


def test_a_file_and_a_pattern_are_sources(tmp_path):
    make(tmp_path, "a/1.jsonl", "a/2.jsonl", "b/3.jsonl")
    assert names(tmp_path / "a/2.jsonl") == ["a/2.jsonl"]
    assert names(tmp_path / "*" / "?.jsonl") == ["a/1.jsonl", "a/2.jsonl", "b/3.jsonl"]
    assert names(tmp_path / "a" / "1.*") == ["a/1.jsonl"]
    make(tmp_path, "c/train.jsonl", "c/test.jsonl")
    assert names(tmp_path / "c" / "t*.jsonl") == ["c/test.jsonl", "c/train.jsonl"]  # it names them itself


def test_the_split_is_told_by_the_name(tmp_path, caplog):
    make(tmp_path, "train.jsonl", "more.jsonl", "test.jsonl", "dev/x.jsonl")
    assert names(tmp_path) == ["more.jsonl", "train.jsonl"]
    assert "only its files of the split train are read, not test, validation" in caplog.text
    assert names(tmp_path, split="test") == names(f"{tmp_path}:test") == ["test.jsonl"]
    assert names(f"{tmp_path}:validation") == names(f"{tmp_path}:dev") == ["dev/x.jsonl"]
    assert len(names(f"{tmp_path}:*")) == 4
    with pytest.raises(DataError, match="there is no 'nope'; it has dev/x, more, test, train"):
        names(f"{tmp_path}:nope")


def test_one_file_is_read_whatever_its_name(tmp_path):
    make(tmp_path, "d/my_test.jsonl")
    assert names(tmp_path / "d/my_test.jsonl") == names(tmp_path / "d") == ["d/my_test.jsonl"]


@pytest.mark.parametrize(
    "source", ["none.jsonl", "talks/none.json.gz", "no folder/x", "x/*.jsonl", "https://x.org/a.jsonl", ""]
)
def test_what_is_not_there_is_one_sentence(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"there is no|has no \.jsonl"):
        names(source)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function that puts a data set into the hub's cache, offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def add(*files, revision="main", commit="a" * 40):
        cache = tmp_path / "hub" / "datasets--org--name"
        (cache / "refs").mkdir(parents=True, exist_ok=True)
        (cache / "refs" / revision).write_text(commit)
        make(cache / "snapshots" / commit, *files)

    return add


def test_a_data_set_of_the_hub_is_read_from_the_cache_offline(hub):
    hub(
        "data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test-00000-of-00001.jsonl"
    )
    expected = ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"]
    for source in ("org/name", "hf://datasets/org/name", "org/name:train", "org/name@main"):
        assert names(source) == expected
    assert names("org/name:test") == names("org/name", split="test") == ["data/test-00000-of-00001.jsonl"]
    assert data_files("org/name")[0].name == "org/name/data/train-00000-of-00002.jsonl"
    assert next(source_rows("org/name")).place == "org/name/data/train-00000-of-00002.jsonl line 1"


def test_a_revision_is_another_snapshot(hub):
    hub("train.jsonl")
    hub("old.jsonl", revision="v1", commit="b" * 40)
    assert names("org/name") == ["train.jsonl"]
    assert names("org/name@v1") == ["old.jsonl"]
    with pytest.raises(DataError, match="org/name@v2 is no local file or folder, and no data set in the hub"):
        names("org/name@v2")
    with pytest.raises(DataError, match="org/none is no local file"):
        names("org/none")


def test_several_parts_are_not_mixed_unasked(hub):
    shard = "-00000-of-00001.jsonl"
    hub(f"main/train{shard}", f"main/test{shard}", f"socratic/train{shard}", f"socratic/test{shard}")
    with pytest.raises(
        DataError, match="several parts, main/train, socratic/train; name one, such as org/name:main/t"
    ):
        names("org/name")
    assert names("org/name:main") == [f"main/train{shard}"]
    assert names("org/name:main", split="test") == names("org/name:main/test") == [f"main/test{shard}"]
    assert len(names("org/name:*")) == 4


def test_code_of_a_data_set_is_neither_fetched_nor_read(hub, tmp_path, monkeypatch):
    hub("train.jsonl", "name.py")
    import huggingface_hub

    asked = {}
    real = huggingface_hub.snapshot_download

    def download(repository, **settings):
        asked.update(settings)
        return real(repository, **settings)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert names("org/name") == ["train.jsonl"]
    assert asked["repo_type"] == "dataset"
    assert not any(pattern.endswith(("py", "pkl", "*", "bin")) for pattern in asked["allow_patterns"])
