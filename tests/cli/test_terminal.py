"""What reaches a terminal: no control characters, thinking folded into one line."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.cli.terminal import THINKING_ROWS, Screen, printable, tail
from shoestring.tokenizer.stream import TextPiece


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def think(text):
    return TextPiece(text=text, kind="thinking")


def answer(text):
    return TextPiece(text=text, kind="answer")


def rows(text):
    """What a terminal shows of `text`: only 'up n rows' and 'erase to the end' are understood."""
    shown = [""]
    for part in text.replace("\x1b[2m", "").replace("\x1b[0m", "").split("\x1b["):
        if part.endswith("A") and part[:-1].isdigit():
            del shown[len(shown) - 1 - int(part[:-1]) :]
            shown.append("")
            continue
        head, *lines = part.removeprefix("J").split("\n")
        shown[-1] += head
        shown += lines
    return [line for line in shown if line]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_control_characters_never_reach_the_terminal():
    assert printable("a\x1b[2Jb\r\x07c\x9b\td\n\u202ee") == "a[2Jbc\td\ne"
    assert printable("häßlich 日本語 \U0001f600") == "häßlich 日本語 \U0001f600"


def test_neither_in_json_nor_in_errors(capsys):
    from shoestring.cli.main import exit_code
    from shoestring.cli.output import print_json

    data = {"text": "a\x1b[2J\x9b\u202e\u00e4"}
    print_json(data)
    shown = capsys.readouterr().out
    assert printable(shown) == shown
    assert json.loads(shown) == data
    assert exit_code(["show", "no/\x1b[2Jsuch\x9b"]) == 1
    assert "no/[2Jsuch" in capsys.readouterr().err


@given(st.text())
def test_nothing_but_tab_and_line_feed_is_left_of_them(text):
    left = printable(text)
    assert not [c for c in left if (ord(c) < 32 or 0x7F <= ord(c) <= 0x9F) and c not in "\n\t"]
    assert printable(left) == left


@given(st.text(), st.integers(2, 40))
def test_the_tail_fits(text, width):
    from rich.cells import cell_len

    lines = tail(printable(text), width)
    assert len(lines) <= THINKING_ROWS
    assert all(cell_len(line) <= width for line in lines)


def test_thinking_is_dimmed_then_folded_and_the_answer_stays(terminal, monkeypatch):
    from shoestring.cli import terminal as module

    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    screen = Screen(terminal, columns=40)
    for number in range(12):
        screen.show([think(f"thought {number}\n\x1b[31m")])
    live = terminal.getvalue()
    assert "\x1b[2m  [31mthought 3" in live
    assert "\x1b[31m" not in live
    assert len(rows(live)) <= THINKING_ROWS
    screen.show([think("done"), answer("\n\nForty"), answer("-two.")])
    screen.end()
    shown = rows(terminal.getvalue())
    assert shown[0].startswith("thought for")
    assert "/think" in shown[0]
    assert shown[1:] == ["Forty-two."]
    screen.show([answer("next")])
    screen.end()
    assert rows(terminal.getvalue())[-1] == "next"


def test_a_stopped_thought_is_folded_too(terminal):
    screen = Screen(terminal, columns=40)
    screen.show([think("hm")])
    screen.end()
    assert len(rows(terminal.getvalue())) == 1


def test_without_a_terminal_there_are_no_escapes():
    out = io.StringIO()
    screen = Screen(out, columns=40)
    screen.show([think("hm"), answer("yes")])
    screen.end()
    screen.note("said")
    assert "\x1b" not in out.getvalue()
    assert out.getvalue().endswith("yes\nsaid\n")
