import getpass
import json
import socket
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

import shoestring
from shoestring.errors import ConfigError
from shoestring.train.report import receipt
from shoestring.train.report.energy import Energy
from shoestring.train.report.receipt import (
    Price,
    Receipt,
    Segment,
    code_version,
    describe_machine,
    money,
    write,
)

MEASURED = Energy(joules=3.6e6, how="measured", detail="RAPL")
UNKNOWN = Energy(joules=None, how="unavailable", detail="no counter")


def segment(energy: Energy = MEASURED, seconds: float = 1800.0) -> Segment:
    return Segment(
        start="2026-01-02T03:04:05+00:00", end="2026-01-02T03:34:05+00:00", seconds=seconds, energy=energy
    )


def example(**changes) -> Receipt:
    fields = {
        "data": {"files": [{"path": "json/decoder.py", "sha256": "ab", "license": "PSF-2.0"}], "tokens": 10},
        "recipe": {"optim": {"lr": 1e-3, "betas": (0.9, 0.95)}},
        "seed": 7,
        "tokens": 4096,
        "flops": {"layers": 1e12, "optimizer": 5e11},
        "machine": describe_machine(peak_flops_per_s=1e11),
        "price": Price(),
        "segments": [segment(), segment()],
    }
    return Receipt(**{**fields, **changes})


def test_a_receipt_holds_the_sum_of_its_segments(tmp_path):
    path = tmp_path / "receipt.json"
    written = write(example(price=Price(per_hour=2.0, per_kwh=0.25, source="a price list")), path)
    content = json.loads(path.read_text())
    assert content == written
    assert (content["seed"], content["tokens"], content["train_flops"]) == (7, 4096, 1.5e12)
    assert (content["seconds"], content["segments"]) == (3600.0, 2)
    assert content["start"] == "2026-01-02T03:04:05+00:00"
    assert content["energy"] == {"joules": 7.2e6, "how": "measured", "detail": "RAPL"}
    assert content["money"]["machine_rent"] == pytest.approx(2.0)
    assert content["money"]["electricity"] == pytest.approx(0.5)
    assert content["money"]["price_source"] == "a price list"
    assert content["data"]["files"][0] == {"path": "json/decoder.py", "sha256": "ab", "license": "PSF-2.0"}
    assert content["recipe"] == {"optim": {"lr": 1e-3, "betas": [0.9, 0.95]}}


def test_what_is_not_known_is_called_unavailable(tmp_path):
    content = write(example(segments=[segment(), segment(UNKNOWN)]), tmp_path / "receipt.json")
    assert content["energy"]["joules"] == content["energy"]["how"] == "unavailable"
    assert content["money"]["machine_rent"] == content["money"]["price_per_hour"] == "unavailable"
    without = money(Price(per_kwh=0.3, source="a bill"), 3600, UNKNOWN)
    assert without["electricity"] == "unavailable"
    assert money(Price(per_hour=0.0, source="own"), 3600, UNKNOWN)["machine_rent"] == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"per_hour": -1.0, "source": "x"}, "per_hour"),
        ({"per_kwh": float("nan"), "source": "x"}, "per_kwh"),
        ({"per_hour": 1.0}, "source"),
    ],
)
def test_senseless_prices_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Price(**fields)


def test_no_place_person_or_host_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    content = write(
        example(
            data={
                "/srv/secret/a.txt": {"path": "/home/somebody/corpus/b.txt"},
                "url": "https://example.org/c/d",
            },
            recipe={
                "out": Path("/home/somebody/runs/demo"),
                "windows": "C:\\Users\\somebody\\x.txt",
                "uri": "file:///srv/secret/e.txt",
                "relative": "runs/demo",
                "note": "from /home/somebody/notes",
                "limit": float("inf"),
            },
        ),
        tmp_path / "receipt.json",
    )
    assert content["data"] == {"a.txt": {"path": "b.txt"}, "url": "https://example.org/c/d"}
    assert content["recipe"] == {
        "out": "demo",
        "windows": "x.txt",
        "uri": "e.txt",
        "relative": "runs/demo",
        "note": "from ~/notes",
        "limit": "inf",
    }
    text = (tmp_path / "receipt.json").read_text()
    for word in (socket.gethostname(), str(tmp_path), str(Path(shoestring.__file__).parent), "somebody"):
        assert word not in text
    if len(getpass.getuser()) > 4:  # "root" may be part of another word
        assert getpass.getuser() not in text


def test_segments_survive_json():
    for energy in (MEASURED, UNKNOWN):
        one = segment(energy)
        assert Segment.of(json.loads(json.dumps(asdict(one)))) == one


def test_the_code_version_follows_every_source_file(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(receipt, "_PACKAGE", package)
    first = code_version()
    assert first["version"] == shoestring.__version__
    assert first["git_commit"] == first["git_is_dirty"] == "unavailable"
    assert code_version() == first
    (package / "inner" / "a.py").rename(package / "inner" / "b.py")
    assert code_version()["sha256"] != first["sha256"]
    (package / "inner" / "b.py").rename(package / "inner" / "a.py")
    assert code_version() == first
    (package / "inner" / "a.py").write_text("x = 2\n")
    assert code_version()["sha256"] != first["sha256"]


def test_only_a_checkout_that_tracks_the_package_names_a_commit(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ("git", "-C", str(tmp_path), *who, *arguments), check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "somebody else's project")
    monkeypatch.setattr(receipt, "_PACKAGE", package)
    assert code_version()["git_commit"] == "unavailable"
    git("add", ".")
    git("commit", "-q", "-m", "ours")
    assert code_version()["git_commit"] == git("rev-parse", "HEAD").strip()
    assert code_version()["git_is_dirty"] is False
    (package / "__init__.py").write_text("x = 1\n")
    assert code_version()["git_is_dirty"] is True


def test_the_machine_is_described():
    machine = describe_machine(peak_flops_per_s=None)
    assert machine["cores"] >= 1
    assert machine["memory_bytes"] > 2**28
    assert machine["threads"] >= 1
    assert machine["gpus"] == []
    assert machine["measured_peak_flops_per_s"] == "unavailable"
    assert machine["cpu"]


def test_now_is_utc():
    assert receipt.utc_now().endswith("+00:00")
