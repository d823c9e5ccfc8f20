"""bench engine: a table, JSON, a picture."""

import json

import pytest

from shoestring.cli.verbs.bench import read_numbers
from shoestring.engine.measure import Limits
from shoestring.errors import ConfigError


@pytest.fixture
def quick(monkeypatch):
    from shoestring.engine import measure

    limits = Limits(read_bytes_per_s=1e10, float_flops_per_s=1e11, int8_ops_per_s=2e11)
    monkeypatch.setattr(measure, "measure_limits", lambda _runtime: limits)


def test_a_table_and_a_picture(cli, trained, quick, tmp_path):
    arguments = ("--concurrency", "1,2", "--prompt", "20", "--tokens", "4")
    picture = tmp_path / "b.png"
    code, out, _ = cli("bench", "engine", str(trained / "model"), *arguments, "--plot", str(picture))
    assert code == 0
    titles, *lines, _, machine = out.splitlines()
    assert "output tok/s" in titles
    assert [line.split()[0] for line in lines] == ["1", "1", "2", "2"]
    assert ["none" in line for line in lines] == [True, False, True, False]
    assert "10.0 GB/s" in machine
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, out, _ = cli(
        "bench", "engine", str(trained / "model"), *arguments, "--quantization", "int8", "--json"
    )
    report = json.loads(out)
    assert (code, report["weights"]) == (0, "int8")
    assert [(row["concurrency"], row["drafts"]) for row in report["rows"]] == [
        (1, False),
        (1, True),
        (2, False),
        (2, True),
    ]
    assert all(row["output_tokens_per_s"] > 0 for row in report["rows"])
    assert report["limits"]["read_bytes_per_s"] == 1e10


def test_what_does_not_fit_is_said_before_loading(cli, trained, quick, tmp_path):
    model = str(trained / "model")
    code, _, err = cli("bench", "engine", model, "--input-len", "120")
    assert (code, "--input-len" in err) == (2, True)
    code, _, err = cli("bench", "engine", model, "--plot", str(tmp_path / "b.pdf"))
    assert (code, "b.pdf" in err) == (2, True)


def test_numbers():
    assert read_numbers("4, 1,1") == [1, 4]
    for text in ("", "1,x", "0", "-1", "5000"):
        with pytest.raises(ConfigError, match="--concurrency"):
            read_numbers(text)
