import random
import shutil

import numpy as np
import pytest

from shoestring.data import textstore
from shoestring.data.corpus import DataConfig
from shoestring.data.textstore import prepare_corpus
from shoestring.errors import DataError, StorageError


def paths(store, split):
    return [document.path for document in store.documents(split)]


def split_of(store):
    return {document.text: document.split for s in ("train", "heldout") for document in store.documents(s)}


def test_every_document_comes_back_once_with_its_split(corpus_folder, tmp_path):
    config = DataConfig(sources=(str(corpus_folder),), heldout_fraction=0.2)
    store = prepare_corpus(config, tmp_path / "cache")
    texts = {f"corpus/{p.name}": p.read_text() for p in corpus_folder.iterdir()}
    found = {d.path: d.text for split in ("train", "heldout") for d in store.documents(split)}
    assert found == texts
    assert paths(store, "train") == sorted(paths(store, "train"))
    assert 0 < len(paths(store, "heldout")) < 25
    assert not set(store.texts("train")) & set(store.texts("heldout"))
    assert store.sizes().sum() == sum(len(text.encode()) for text in texts.values())


def test_duplicates_go_before_the_split_so_none_crosses_it(tmp_path):
    rng = random.Random(3)
    folder = tmp_path / "d"
    folder.mkdir()
    for i in range(40):
        words = [f"w{rng.randrange(5000)}" for _ in range(200)]
        (folder / f"{i:02}a.txt").write_text(" ".join(words))
        words[50] = "other"
        (folder / f"{i:02}b.txt").write_text(" ".join(words))
    store = prepare_corpus(DataConfig(sources=(str(folder),), heldout_fraction=0.5), tmp_path / "cache")
    kept = paths(store, "train") + paths(store, "heldout")
    assert sorted(kept) == [f"d/{i:02}a.txt" for i in range(40)]
    assert len(paths(store, "heldout")) > 5
    assert store.manifest["duplicates_removed"] == {"exact": 0, "near": 40}


def test_adding_files_moves_no_document_to_the_other_side(corpus_folder, tmp_path):
    config = DataConfig(sources=(str(corpus_folder),), heldout_fraction=0.3)
    before = split_of(prepare_corpus(config, tmp_path / "cache"))
    (corpus_folder / "a_new_one.py").write_text("print('something quite different')")
    after = split_of(prepare_corpus(config, tmp_path / "cache"))
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()


def test_heldout_bytes_are_bounded(corpus_folder, tmp_path):
    config = DataConfig(sources=(str(corpus_folder),), heldout_fraction=0.5, heldout_max_bytes=900)
    store = prepare_corpus(config, tmp_path / "cache")
    assert 0 < sum(len(text.encode()) for text in store.texts("heldout")) <= 900


def test_nothing_is_held_out_when_that_is_asked(corpus_folder, tmp_path):
    store = prepare_corpus(DataConfig(sources=(str(corpus_folder),), heldout_fraction=0), tmp_path / "cache")
    assert paths(store, "heldout") == []
    assert len(paths(store, "train")) == 60


def test_of_a_single_text_the_last_lines_are_held_out(tmp_path):
    text = "".join(f"line {i} of one file: grüße\n" for i in range(1000))
    (tmp_path / "one.txt").write_text(text)
    store = prepare_corpus(
        DataConfig(sources=(str(tmp_path / "one.txt"),), heldout_fraction=0.05), tmp_path / "c"
    )
    (train,), (heldout,) = store.texts("train"), store.texts("heldout")
    assert train + heldout == text
    assert train.endswith("\n")
    assert 0.05 <= len(heldout) / len(text) < 0.06


def test_a_single_line_cannot_be_split(tmp_path):
    (tmp_path / "one.txt").write_text("just this")
    with pytest.raises(DataError, match="heldout_fraction=0"):
        prepare_corpus(
            DataConfig(sources=(str(tmp_path / "one.txt"),), heldout_fraction=0.01), tmp_path / "c"
        )


def test_a_corpus_without_text_says_why_and_leaves_nothing(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.jsonl").write_text('{"content": "x"}\n')
    with pytest.raises(DataError, match=r"no text in .*it has content.*text_field"):
        prepare_corpus(DataConfig(sources=(str(tmp_path / "d"),)), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_same_corpus_is_read_once(corpus_folder, tmp_path, monkeypatch):
    config = DataConfig(sources=(str(corpus_folder),))
    calls = []
    first = prepare_corpus(config, tmp_path / "cache", lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1] == sum(p.stat().st_size for p in corpus_folder.iterdir())
    monkeypatch.setattr(textstore, "read_documents", None)
    assert prepare_corpus(config, tmp_path / "cache").folder == first.folder
    shutil.copytree(corpus_folder, tmp_path / "elsewhere" / "corpus")
    moved = DataConfig(sources=(str(tmp_path / "elsewhere" / "corpus"),), fim_rate=0.5)
    assert prepare_corpus(moved, tmp_path / "cache").folder == first.folder


def test_a_changed_option_or_file_is_another_corpus(corpus_folder, tmp_path):
    config = DataConfig(sources=(str(corpus_folder),))
    folders = {prepare_corpus(config, tmp_path / "cache").folder}
    folders.add(
        prepare_corpus(DataConfig(sources=config.sources, heldout_fraction=0.1), tmp_path / "cache").folder
    )
    (corpus_folder / "file00.py").write_text("changed = True")
    folders.add(prepare_corpus(config, tmp_path / "cache").folder)
    assert len(folders) == 3


@pytest.mark.parametrize("name", ["text.bin", "documents.npy"])
def test_a_damaged_store_is_refused_by_name(corpus_folder, tmp_path, name):
    config = DataConfig(sources=(str(corpus_folder),))
    path = prepare_corpus(config, tmp_path / "cache").folder / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=name):
        prepare_corpus(config, tmp_path / "cache")


def test_an_index_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "documents.npy"
    for ends in ([3, 2, 5], [3, 4]):
        index = np.zeros(len(ends), dtype=textstore.INDEX)
        index["end"] = ends
        np.save(path, index)
        with pytest.raises(DataError, match=r"documents\.npy"):
            textstore.load_index(path, textstore.INDEX, 5)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="is no index"):
        textstore.load_index(path, textstore.INDEX, 5)


def test_a_full_disk_loses_nothing(corpus_folder, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(textstore.np, "save", full)
    with pytest.raises(StorageError, match=r"no room for .*cache"):
        prepare_corpus(DataConfig(sources=(str(corpus_folder),)), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
