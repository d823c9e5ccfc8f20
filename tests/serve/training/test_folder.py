"""The folder of runs: what is one, and that nothing leads out of it."""

import os

import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.training.folder import (
    MAX_FILE_BYTES,
    RunsFolder,
    has_file,
    last_line,
    open_inside,
    read_json,
    read_toml,
)


def make(folder, **files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    return folder


def test_runs_are_folders_with_a_recipe_or_metrics_the_last_changed_first(tmp_path):
    make(tmp_path / "old", config_toml="")
    make(tmp_path / "new", metrics_jsonl="")
    make(tmp_path / "none")
    make(tmp_path / ".hidden", config_toml="")
    os.utime(tmp_path / "old" / "config.toml", (1, 1))
    (tmp_path / "link").symlink_to(tmp_path / "old")
    runs = RunsFolder(tmp_path)
    assert runs.names() == ["new", "old"]
    assert runs.run("old") == tmp_path / "old"
    assert RunsFolder(tmp_path / "nowhere").names() == []


@pytest.mark.parametrize("name", ["none", "link", "..", ".", "", "old/..", "/etc", "old\0"])
def test_no_other_name_is_a_run(tmp_path, name):
    make(tmp_path / "old", config_toml="")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    with pytest.raises(RequestError, match="there is no run"):
        RunsFolder(tmp_path).run(name)


def test_files_are_read_below_the_folder_alone(tmp_path):
    outside = make(tmp_path / "outside", secret_json='{"a": 1}')
    run = make(tmp_path / "run", a_json='{"a": 1}', b_toml="a = 1")
    (run / "stage").symlink_to(outside)
    (run / "c.json").symlink_to(outside / "secret.json")
    os.mkfifo(run / "pipe")
    assert read_json(run, "a.json") == {"a": 1} == read_toml(run, "b.toml")
    assert has_file(run, "a.json")
    for parts in (
        *(("stage", "secret.json"), ("c.json",), ("pipe",), ("..", "outside", "secret.json"), ("nothing",)),
        *(("a/b", "c"), ("x\0",), ("a.json", "x")),
    ):
        assert open_inside(run, *parts) is None
        assert read_json(run, *parts) == {}
        assert not has_file(run, *parts)


@pytest.mark.parametrize("content", ["[1]", "{", "[" * 200_000, '"' + "x" * MAX_FILE_BYTES + '"', "\ud800"])
def test_a_broken_file_is_empty(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content.encode(errors="surrogatepass"))
    assert read_json(tmp_path, "a.json") == {}


def test_the_last_line_of_a_long_log(tmp_path):
    (tmp_path / "log").write_text("x" * 10_000 + "\nthe end\n\n")
    assert last_line(tmp_path, "log") == "the end"
    assert last_line(tmp_path, "none") == ""
