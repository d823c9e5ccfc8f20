import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from shoestring.train.report.display import PLAIN_INTERVAL_S, Display

STATS = {
    "step": 1234,
    "tokens": 12_340_000,
    "loss": 3.21456,
    "bits_per_byte": 1.842,
    "heldout_bits_per_byte": 1.9,
    "tokens_per_s": 2950.4,
    "peak_share": 0.413,
    "expert_load": [0.125, 0.375, 0.25, 0.25],
    "max_violation": 0.5,
    "lr": 4.2e-3,
    "batch": 16,
    "grad_norm": 0.8123,
    "phase": "constant",
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def terminal(width: int = 100, height: int = 40) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def text(console: Console) -> str:
    return console.file.getvalue()


def test_a_terminal_shows_every_figure():
    console = terminal()
    with Display("runs/demo", 20_000_000, console=console) as display:
        display.update(STATS)
    shown = text(console)
    for part in ("runs/demo", "1,234", "12.3M/20M 62%", "3.2146", "1.8420", "1.9000", "2,950", "41.3%"):
        assert part in shown
    for part in ("4.20e-03", "0.812", "0.500", "constant", "43m16s", "▃▇▅▅ 0.50-1.50x mean"):
        assert part in shown


def test_without_a_terminal_a_line_an_interval_and_one_at_the_end():
    console, clock = plain(), Clock()
    with Display("runs/demo", 1000, console=console, clock=clock) as display:
        for step in range(1, 26):
            clock.now = step * PLAIN_INTERVAL_S / 10
            display.update({"step": step, "tokens": step * 10, "loss": 2.0})
    lines = text(console).splitlines()
    assert lines[0] == "runs/demo"
    assert [line.split(" | ")[0] for line in lines[1:]] == ["step 1", "step 11", "step 21", "step 25"]
    assert "\x1b" not in text(console)
    assert lines[1] == "step 1 | tokens 10/1k 1% | loss 2.0000"


def test_a_heldout_figure_is_shown_at_once_and_values_stay():
    console = plain()
    with Display("t", 1000, console=console, clock=Clock()) as display:
        display.update({"step": 1, "loss": 2.0})
        display.update({"step": 2, "loss": None, "heldout_bits_per_byte": 1.5})
    assert text(console).splitlines()[-1] == "step 2 | loss 2.0000 | held-out bits/byte 1.5000"


def test_quiet_shows_nothing():
    for console in (plain(), terminal()):
        with Display("t", 1000, quiet=True, console=console) as display:
            display.update(STATS)
            display.say("hello")
        assert text(console) == ""


def test_by_default_stdout_stays_free(capsys):
    with Display("runs/demo", 1000) as display:
        display.update({"step": 1})
        display.say("held out")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["runs/demo", "step 1", "held out"]


@pytest.mark.parametrize("console", [plain, terminal])
def test_hostile_text_cannot_reach_the_terminal(console):
    console = console()
    with Display("[red]t\x1b]0;x\x07", 1000, console=console) as display:
        display.say("[bold]a\x1b[2Jb\x9bc\x00\ud800d")
        display.update({"phase": "\x1b[31mred", "step": 1})
    shown = text(console)
    for sequence in ("\x1b]0", "\x1b[2J", "\x9b", "\x00", "\x1b[31m"):
        assert sequence not in shown
    assert "[bold]a[2Jbc?d" in shown
    assert "[red]t]0;x" in shown


def test_no_color_is_respected(monkeypatch):
    shown = {}
    for name in ("", "1"):
        monkeypatch.setenv("NO_COLOR", name)
        monkeypatch.setenv("TERM", "xterm-256color")
        console = Console(file=io.StringIO(), force_terminal=True, width=80)
        with Display("t", 1000, console=console) as display:
            display.update({**STATS, "tokens": 500})
        shown[name] = text(console)
    assert "\x1b[38;" in shown[""]
    assert "\x1b[38;" not in shown["1"]


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with Display("t", 1000, console=console) as display:
        display.update({"step": 1})
    assert text(console).splitlines() == ["t", "step 1"]


ODD = st.none() | st.floats() | st.integers() | st.text(max_size=5) | st.lists(st.floats(), max_size=3)


@settings(max_examples=60)
@given(
    st.integers(1, 200),
    st.integers(1, 60),
    st.integers(0, 10**15),
    st.dictionaries(st.sampled_from([*STATS, "eta_s"]), ODD, max_size=6),
    st.lists(st.floats(0, 1), max_size=300),
)
def test_no_size_and_no_value_breaks_it(width, height, total, stats, load):
    stats = {**stats, "expert_load": load}
    for console in (terminal(width, height), plain()):
        with Display("a title", total, console=console) as display:
            display.update(stats)
            display.update({**STATS, **stats})
            display.say("x" * 300)


def test_every_line_fits_the_terminal():
    for width in (10, 20, 40, 79, 120):
        console = terminal(width)
        display = Display("runs/a-rather-long-name-of-a-run", 20_000_000, console=console)
        display._values.update(STATS)
        console.print(display._panel())
        assert max(len(line) for line in text(console).splitlines()) <= width


def test_ascii_terminals_get_ascii_bars():
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), force_terminal=True, width=60)
    with Display("t", 1000, console=console) as display:
        display.update(STATS)
    console.file.flush()
    shown = console.file.buffer.getvalue().decode("ascii")
    assert "-%++ 0.50-1.50x mean" in shown
