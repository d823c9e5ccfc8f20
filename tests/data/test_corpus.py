from collections import Counter

import pytest

from shoestring import config as configuration
from shoestring.data.corpus import DataConfig, corpus_files, read_documents
from shoestring.errors import ConfigError, DataError


def documents(config):
    skips = Counter()
    files = corpus_files(config, skips)
    return [document for file in files for document in read_documents(file.file, config, skips)], skips


def test_documents_know_where_they_came_from(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "a.py").write_text("# SPDX-License-Identifier: Apache-2.0 OR MIT\nx = 1\n")
    (folder / "b.jsonl").write_text('{"text": "row one", "license": "CC0-1.0"}\n{"text": "row two"}\n')
    result, skips = documents(DataConfig(sources=(str(folder),)))
    assert [(d.path, d.license, d.text[:7]) for d in result] == [
        ("home/a.py", "Apache-2.0 OR MIT", "# SPDX-"),
        ("home/b.jsonl", "CC0-1.0", "row one"),
        ("home/b.jsonl", None, "row two"),
    ]
    assert not skips


def test_what_cannot_be_read_is_counted_and_named(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"\xff\xff")
    (folder / "b.txt").write_text("  \n")
    (folder / "c.txt").write_text("good")
    result, skips = documents(DataConfig(sources=(str(folder),)))
    assert [d.text for d in result] == ["good"]
    assert skips == {("home/a.txt", "not UTF-8"): 1, ("home/b.txt", "empty"): 1}


def test_sources_come_in_the_order_given(tmp_path):
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text(name)
    config = DataConfig(sources=(str(tmp_path / "b.txt"), str(tmp_path / "a.txt")))
    assert [d.text for d in documents(config)[0]] == ["b.txt", "a.txt"]


def test_a_folder_without_text_files_is_refused_by_name(tmp_path):
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(DataError, match=r"holds no \.txt"):
        documents(DataConfig(sources=(str(tmp_path),)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"sources": ()},
        {"heldout_fraction": 0.6},
        {"heldout_fraction": -0.1},
        {"fim_rate": 1.5},
        {"near_duplicate_jaccard": float("nan")},
        {"max_document_bytes": 10},
        {"heldout_max_bytes": -1},
    ],
)
def test_wrong_values_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DataConfig(**wrong)


def test_the_config_is_saved_and_loaded(tmp_path):
    config = DataConfig(sources=("stdlib", "org/name"), fim_rate=0.25)
    configuration.save(config, tmp_path / "data.toml")
    assert configuration.load(DataConfig, tmp_path / "data.toml") == config
