import sys
import types

import pytest

from shoestring.data.sources import find_files, guess_license
from shoestring.errors import DataError, MissingDependencyError

MIT = (
    "MIT License\n\nPermission is hereby granted, free of charge, to any person\nto deal without restriction"
)


def names(source):
    return [file.name for file in find_files(str(source))]


def test_a_folder_is_walked_in_order_without_hidden_or_other_files(tmp_path):
    folder = tmp_path / "mine"
    for name in (
        "b/z.md",
        "a.txt",
        "b/a.py.gz",
        ".git/x.py",
        "c.png",
        "__pycache__/d.py",
        "b.jsonl",
        "LICENSE.md",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text")
    assert names(folder) == ["mine/a.txt", "mine/b.jsonl", "mine/b/a.py.gz", "mine/b/z.md"]


def test_links_neither_loop_nor_count_twice(tmp_path):
    folder = tmp_path / "mine"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "x.txt").write_text("text")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "b").symlink_to(folder / "a")
    (folder / "gone.txt").symlink_to(folder / "nowhere")
    assert len(names(folder)) == 1
    assert len(names(f"{folder}/**/*.txt")) == 1


def test_globs_match_as_a_shell_does(tmp_path):
    for name in ("x/1.txt", "x/2.md", "x/y/3.txt", "4.txt"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text("text")
    assert names(tmp_path / "d" / "x" / "*.txt") == ["x/1.txt"]
    assert names(tmp_path / "d" / "*" / "?.*") == ["d/x/1.txt", "d/x/2.md"]
    assert names(tmp_path / "d" / "**" / "*.txt") == ["d/4.txt", "d/x/1.txt", "d/x/y/3.txt"]


def test_what_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="no file, folder or glob"):
        find_files(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="there is no folder"):
        find_files(str(tmp_path / "nothing" / "*.txt"))
    (tmp_path / "a.pkl").write_text("x")
    with pytest.raises(DataError, match=r"only \.txt"):
        find_files(str(tmp_path / "a.pkl"))


def test_the_standard_library_has_relative_names_and_no_tests():
    files = find_files("stdlib")
    assert "stdlib/argparse.py" in [file.name for file in files]
    assert all(file.name.startswith("stdlib/") and file.license == "PSF-2.0" for file in files)
    banned = {"test", "tests", "site-packages", "__pycache__"}
    assert not any(banned & set(file.name.split("/")) for file in files)
    assert not any("_sysconfigdata" in file.name for file in files)


def test_a_license_file_speaks_for_its_folder_and_below(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "LICENSE").write_text(MIT)
    for name in ("a/x.py", "a/b/y.py", "z.py"):
        (tmp_path / name).write_text("x = 1")
    licenses = {file.path.name: file.license for file in find_files(str(tmp_path))}
    assert licenses == {"x.py": "MIT", "y.py": "MIT", "z.py": None}
    assert find_files(str(tmp_path / "a" / "x.py"))[0].license == "MIT"


@pytest.mark.parametrize(
    ("text", "spdx"),
    [
        ("Apache License\n Version 2.0, January 2004", "Apache-2.0"),
        ("GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007", "GPL-3.0"),
        ("GNU GENERAL PUBLIC LICENSE\nVersion 2, June 1991", "GPL-2.0"),
        ("Redistribution and use in source and\nbinary forms ... Neither the name of", "BSD-3-Clause"),
        ("Redistribution and use in source and binary forms", "BSD-2-Clause"),
        (MIT, "MIT"),
        ("All rights reserved", None),
    ],
)
def test_licenses_are_told_by_their_words(text, spdx):
    assert guess_license(text) == spdx


def fake_hub(monkeypatch, download):
    module = types.ModuleType("huggingface_hub")
    module.snapshot_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)


@pytest.mark.parametrize("source", ["some/data", "hf://datasets/some/data"])
def test_a_hub_dataset_is_fetched_as_files_only(tmp_path, monkeypatch, source):
    folder = tmp_path / "0123abcd"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# card")
    (folder / "data" / "train.jsonl").write_text('{"text": "x"}')
    (folder / "data.py").write_text("raise SystemExit")
    asked = {}

    def download(repo_id, *, repo_type, revision, allow_patterns):
        asked.update(repo_id=repo_id, repo_type=repo_type, patterns=allow_patterns)
        return str(folder)

    fake_hub(monkeypatch, download)
    (file,) = find_files(source)
    assert (file.name, file.license) == ("some/data/data/train.jsonl", "cc-by-4.0")
    assert file.source == "hf://datasets/some/data@0123abcd"
    assert asked["repo_id"] == "some/data"
    assert asked["repo_type"] == "dataset"
    assert not any(pattern.endswith(".py") for pattern in asked["patterns"])


def test_an_unreachable_hub_is_one_sentence(monkeypatch):
    def download(*args, **kwargs):
        raise ConnectionError("offline\nlong traceback")

    fake_hub(monkeypatch, download)
    with pytest.raises(DataError, match=r"some/data is no local file or folder.*offline$"):
        find_files("some/data")


def test_a_missing_hub_client_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match="pip install huggingface_hub"):
        find_files("hf://datasets/some/data")
