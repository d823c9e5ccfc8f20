import re
import shutil
import subprocess
import sys

import pytest

from shoestring import errors


def every_error() -> list[type[errors.ShoestringError]]:
    found, waiting = [], [errors.ShoestringError]
    while waiting:
        found.append(kind := waiting.pop())
        waiting += [sub for sub in kind.__subclasses__() if sub.__module__ == errors.__name__]
    return found


def test_the_drawing_at_the_top_shows_every_error_and_its_exit_code():
    drawn = {name: int(code) for name, code in re.findall(r"(\w+) {2,}(\d+) {2,}", errors.__doc__)}
    assert drawn == {kind.__name__: kind.exit_code for kind in every_error()}


def test_the_drawing_shows_who_is_under_whom():
    under = {}
    for line in errors.__doc__.splitlines():
        if match := re.match(r"([|` -]*)(\w+) {2,}\d+ ", line):
            depth = len(match[1]) // 4
            under[match[2]] = depth
    depths = {kind.__name__: len(kind.__mro__) - len(Exception.__mro__) - 1 for kind in every_error()}
    assert under == depths


def test_the_exit_codes_are_those_that_are_documented():
    codes = {kind.exit_code for kind in every_error()}
    assert codes == {1, 2, 3, 4, 75}  # 0 is success, 130 an interrupt


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_the_text_is_shown_as_it_is(kind):
    assert str(kind("optim.lr = -1 is not over 0")) == "optim.lr = -1 is not over 0"
    assert kind.__doc__


def test_errors_need_nothing_else(tmp_path):
    """Whoever catches them, such as the command line before it imports torch, pays nothing."""
    shutil.copy(errors.__file__, tmp_path / "alone.py")
    code = "import sys; n = len(sys.modules); import alone; print(len(sys.modules) - n)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr
