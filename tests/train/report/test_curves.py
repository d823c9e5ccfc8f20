import builtins
import struct

import pytest

from shoestring.errors import ConfigError, DataError, MissingDependencyError
from shoestring.train.report.curves import _running_mean, draw
from shoestring.train.report.metrics import MetricsLog


@pytest.fixture(autouse=True)
def quick_figures():
    """Figures as they are."""


def write(path, rows) -> None:
    with MetricsLog(path) as metrics:
        for step, row in enumerate(rows, start=1):
            metrics.log(step, row)


def full_rows(count: int = 60):
    for step in range(1, count + 1):
        yield {
            "tokens": step * 4096,
            "loss": 8 / step + 2,
            "bits_per_byte": 3 / step + 1,
            "heldout_bits_per_byte": 3 / step + 1.1 if step % 20 == 0 else None,
            "lr": 1e-3,
            "batch": 8,
            "grad_norm": 0.5 if step != 7 else float("inf"),
            "max_violation": 1 / step,
            "tokens_per_s": 2900 + step,
            "peak_share": 0.4,
            "phase": "constant",
        }


def test_a_picture_of_everything(tmp_path):
    write(tmp_path / "metrics.jsonl", full_rows())
    draw(
        tmp_path / "metrics.jsonl",
        tmp_path / "c.png",
        title="a $ sign",
        baselines={"gzip -9": 2.3, "$x": 1.9},
    )
    picture = (tmp_path / "c.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert width == 1500
    assert height > 1200


def test_the_svg_names_its_curves_and_is_reproducible(tmp_path, monkeypatch):
    import matplotlib as mpl

    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")  # text stays text
    write(tmp_path / "metrics.jsonl", full_rows())
    for name in ("a.svg", "b.svg"):
        draw(tmp_path / "metrics.jsonl", tmp_path / name, baselines={"xz -9": 1.875})
    text = (tmp_path / "a.svg").read_text()
    for part in (
        "Bits per byte",
        "Training loss",
        "Learning rate",
        "Batch",
        "Gradient norm",
        "Expert max violation",
    ):
        assert part in text
    for part in ("Speed", "of measured peak", "held out (last 1.150)", "xz -9 (1.875)", "tokens trained on"):
        assert part in text
    assert text == (tmp_path / "b.svg").read_text()


def test_what_was_not_logged_has_no_panel(tmp_path, monkeypatch):
    import matplotlib as mpl

    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")
    write(tmp_path / "metrics.jsonl", [{"loss": 2.0, "bits_per_byte": float("nan")}, {"loss": 1.0}])
    draw(tmp_path / "metrics.jsonl", tmp_path / "c.svg")
    text = (tmp_path / "c.svg").read_text()
    assert "Training loss" in text
    assert "Expert" not in text
    assert "steps" in text


@pytest.mark.parametrize("rows", [[], [{"phase": "warm-up"}], [{"loss": float("nan")}], [{"loss": "low"}]])
def test_a_log_without_figures_is_refused(tmp_path, rows):
    write(tmp_path / "metrics.jsonl", rows)
    with pytest.raises(DataError, match="no figures"):
        draw(tmp_path / "metrics.jsonl", tmp_path / "c.png")


def test_other_file_types_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"c\.pdf"):
        draw(tmp_path / "metrics.jsonl", tmp_path / "c.pdf")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path / "metrics.jsonl", [{"loss": 1.0}])
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match="plots"):
        draw(tmp_path / "metrics.jsonl", tmp_path / "c.png")


def test_the_running_mean_follows_a_line_without_lag():
    line = [float(i) for i in range(400)]
    means = _running_mean(line)
    assert means[:395] == pytest.approx(line[:395])
    assert _running_mean([3.0]) == [3.0]
