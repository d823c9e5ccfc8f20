import hashlib
import json

from shoestring.data.corpus import DataConfig
from shoestring.data.textstore import prepare_corpus


def test_the_manifest_accounts_for_every_file_and_byte(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "a.py").write_text("# SPDX-License-Identifier: MIT\nprint('grüße')\n")
    (folder / "b.jsonl").write_text('{"text": "one", "license": "CC0-1.0"}\n{"text": "two"}\n{"text": 3}\n')
    (folder / "c.txt").write_text("two ")
    (folder / "d.txt").write_bytes(b"\xff")
    config = DataConfig(sources=(str(folder),), heldout_fraction=0, drop_near_duplicates=False)
    manifest = prepare_corpus(config, tmp_path / "cache").manifest
    a, b, c, d = manifest["files"]
    data = (folder / "a.py").read_bytes()
    assert a["path"] == "d/a.py"
    assert (a["bytes"], a["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert a["text_bytes"] == {"train": len(data), "heldout": 0}
    assert [f["license"] for f in (a, b, c, d)] == ["MIT", "CC0-1.0, unknown", None, None]
    assert [f["documents"]["train"] for f in (a, b, c, d)] == [1, 2, 0, 0]
    assert manifest["totals"]["documents"] == {"train": 3, "heldout": 0}
    assert manifest["totals"]["text_bytes"]["train"] == len(data) + 6
    assert manifest["totals"]["documents_per_license"] == {"MIT": 1, "CC0-1.0": 1, "unknown": 1}
    assert manifest["duplicates_removed"] == {"exact": 1, "near": 0}
    assert manifest["skipped"] == [
        {"path": "d/b.jsonl", "reason": "no string field 'text' in a row; it has text", "count": 1},
        {"path": "d/d.txt", "reason": "not UTF-8", "count": 1},
    ]


def test_no_absolute_path_is_written(corpus_folder, tmp_path):
    folder = prepare_corpus(DataConfig(sources=(str(corpus_folder),)), tmp_path / "cache").folder
    text = (folder / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["files"][0]["path"] == "corpus/file00.py"
