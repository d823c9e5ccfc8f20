import hashlib
import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from shoestring.data.corpus import DataConfig
from shoestring.data.fetch.catalogue import Corpus, DebianPackage, Wheel, corpora, find_corpus
from shoestring.data.fetch.fetch import fetch_corpus
from shoestring.data.textstore import prepare_corpus
from shoestring.errors import ConfigError, DataError, MissingDependencyError

SOURCE = "def answer():\n    return 42  # the answer to every question that there is\n"


def make_wheel(folder: Path, name: str, text: str) -> Wheel:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/code.py", text)
        archive.writestr(
            f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{name}-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(package=name, version="1.0", sha256=digest, license="MIT")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels in place of the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def corpus(index):
    texts = {"shoeone": SOURCE, "shoetwo": SOURCE.replace("42", "43") * 2}
    wheels = tuple(make_wheel(index, name, text) for name, text in texts.items())
    return Corpus(name="two", title="two packages", text_bytes=300, wheels=wheels)


def test_a_corpus_is_a_folder_of_text_with_a_manifest(corpus, tmp_path):
    calls = []
    manifest = fetch_corpus(corpus, tmp_path / "out", lambda *amounts: calls.append(amounts))
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (tmp_path / "out" / "shoeone" / "shoeone" / "code.py").read_text() == SOURCE
    assert [part["license"] for part in manifest["packages"]] == ["MIT", "MIT"]
    assert manifest["text_bytes"] == 3 * len(SOURCE) == calls[-1][0]
    store = prepare_corpus(
        DataConfig(sources=(str(tmp_path / "out"),), heldout_fraction=0), tmp_path / "cache"
    )
    assert sum(store.sizes()) == 3 * len(SOURCE)


def test_what_is_there_is_not_fetched_again(corpus, index, tmp_path):
    (index / "shoetwo-1.0-py3-none-any.whl").rename(tmp_path / "away.whl")
    with pytest.raises(DataError, match=r"could not fetch shoetwo==1\.0"):
        fetch_corpus(corpus, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()
    (tmp_path / "away.whl").rename(index / "shoetwo-1.0-py3-none-any.whl")
    (index / "shoeone-1.0-py3-none-any.whl").unlink()
    assert len(fetch_corpus(corpus, tmp_path / "out")["packages"]) == 2
    assert not list((tmp_path / "out").glob("*.tmp-*"))


def test_another_version_takes_the_place_of_the_old_one(corpus, tmp_path):
    fetch_corpus(corpus, tmp_path / "out")
    entry = tmp_path / "out" / "shoeone" / "package.json"
    entry.write_text(entry.read_text().replace('"1.0"', '"0.9"'))
    (tmp_path / "out" / "shoeone" / "old.py").write_text("old")
    fetch_corpus(corpus, tmp_path / "out")
    assert not (tmp_path / "out" / "shoeone" / "old.py").exists()
    assert json.loads(entry.read_text())["version"] == "1.0"


def test_another_file_of_that_name_is_refused(corpus, index, tmp_path):
    make_wheel(index, "shoeone", SOURCE + "# changed\n")
    with pytest.raises(DataError, match="is not the file that was expected"):
        fetch_corpus(corpus, tmp_path / "out")
    assert not (tmp_path / "out" / "shoeone").exists()


@pytest.fixture
def debian(tmp_path, monkeypatch):
    """A Debian package built here, handed out by a program in the place of apt-get."""
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: shoedoc\nVersion: 2.0\nArchitecture: all\nMaintainer: nobody <n@example.org>\n"
        "Description: a manual\n"
    )
    (tree / "usr/share/doc/shoedoc").mkdir(parents=True)
    (tree / "usr/share/doc/shoedoc/guide.html").write_text(f"<h1>Guide</h1><p>{'How it works. ' * 9}</p>")
    built = tmp_path / "shoedoc_2.0_all.deb"
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", tree, built], check=True, capture_output=True
    )
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "apt-get").write_text(
        f'#!/bin/sh\n[ "$2" = shoedoc ] && exec cp {built} .\necho "E: nothing" >&2; exit 100\n'
    )
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return tools


def manual(name):
    part = DebianPackage(package=name, license="MIT")
    return Corpus(name="manual", title="one manual", text_bytes=100, debian=(part,))


def test_manuals_come_from_debian(debian, tmp_path):
    manifest = fetch_corpus(manual("shoedoc"), tmp_path / "out")
    (entry,) = manifest["packages"]
    assert (entry["version"], entry["files"], len(entry["sha256"])) == ("2.0", 1, 64)
    page = tmp_path / "out/shoedoc/usr/share/doc/shoedoc/guide.html.txt"
    assert page.read_text().startswith("Guide\n\nHow it works.")


def test_what_debian_does_not_have_is_one_sentence(debian, tmp_path):
    with pytest.raises(DataError, match=r"could not fetch Debian's nothing-here \(E: nothing\)"):
        fetch_corpus(manual("nothing-here"), tmp_path / "out")


def test_without_debian_the_missing_tool_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="apt-get is missing"):
        fetch_corpus(manual("shoedoc"), tmp_path / "out")


def test_the_catalogue_is_whole():
    names = [corpus.name for corpus in corpora()]
    assert names == sorted(names)
    assert find_corpus(names[0]).name == names[0]
    for corpus in corpora():
        parts = [part.package for part in (*corpus.wheels, *corpus.debian)]
        assert len(set(parts)) == len(parts) > 0
        assert all(len(wheel.sha256) == 64 and wheel.version for wheel in corpus.wheels)
        assert all(corpus.licenses)
    with pytest.raises(ConfigError, match="there are manuals, python-packages"):
        find_corpus("internet")
