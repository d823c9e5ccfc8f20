"""quantize: a packed folder that runs, and what it refuses."""

import json

import pytest

from shoestring.engine.offline.plan import read_weights
from shoestring.errors import ConfigError


@pytest.fixture(scope="module")
def packed(trained, tmp_path_factory):
    from shoestring.cli.main import exit_code

    folder = tmp_path_factory.mktemp("packed") / "int4"
    assert exit_code(["quantize", str(trained / "model"), str(folder), "--bits", "4", "--json"]) == 0
    return folder


def test_a_packed_folder_runs_and_is_listed_as_what_it_is(cli, packed):
    code, out, _ = cli("run", str(packed), "def f", "--complete", "--max-tokens", "3", "--json")
    assert (code, json.loads(out)["tokens"]) == (0, 3)
    rows = json.loads(cli("list", str(packed.parent), "--json")[1])["models"]
    assert [(row["model"], row["weights"]) for row in rows] == [(str(packed), "int4")]
    assert json.loads(cli("show", str(packed), "--json")[1])["weights"] == "int4"


def test_what_cannot_be_is_refused(cli, packed, trained, tmp_path):
    model, out = str(trained / "model"), str(tmp_path / "new")
    for arguments, words in (
        ([model, out, "--bits", "3"], "--bits"),
        ([model, out, "--bits", "4", "--target-ram", "1G"], "one of the two"),
        ([model, out, "--target-ram", "8G"], "fits as it is"),
        ([model, out, "--target-ram", "lots"], "lots"),
        ([model, str(packed)], "not empty"),
        ([str(packed), out], "already"),
        ([str(packed), out, "--target-ram", "1M"], "packed already"),
    ):
        code, _, err = cli("quantize", *arguments)
        assert code == 2
        assert words in err
        assert not (tmp_path / "new").exists()
    for arguments in (["run", str(packed), "x", "--quant", "int8"], ["export", str(packed), out]):
        assert cli(*arguments)[0] == 2


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (None, None),
        ("int8", "int8"),
        ("12G", 12 * 10**9),
        ("1.5GiB", 3 * 2**29),
        ("800m", 8 * 10**8),
        ("5 kb", 5000),
    ],
)
def test_sizes(text, meant):
    assert read_weights(text) == meant


@pytest.mark.parametrize("text", ["int3", "", "-1G", "G", "1e9", "12 parsecs"])
def test_no_sizes(text):
    with pytest.raises(ConfigError, match="int8, int4"):
        read_weights(text)
