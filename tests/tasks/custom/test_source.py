"""Python of the user's own: found by file or module, and every mistake is one sentence with its line."""

import sys

import pytest

from shoestring.errors import ConfigError
from shoestring.tasks.custom.source import is_own, load_own
from shoestring.tasks.load import load_task

TASK = """
class Sums:
    def examples(self, split, seed):
        yield {"question": "1+1=?", "answer": 2}

    def reward(self, example, text):
        return float(str(example.answer) in text)
"""
REWARD = "def short(completions, **kwargs):\n    return [1.0 for _ in completions]\n"


@pytest.mark.parametrize("name", ["a.py", "folder/a.py:Task", "C:\\x\\a.py:f", "package.module:Task", "m:f"])
def test_names_of_ones_own(name):
    assert is_own(name)


@pytest.mark.parametrize(
    "name", ["countdown", "reasoning_gym:", "my task", "a.txt", "a.py:", ":x", "a.py:b c"]
)
def test_other_names(name):
    assert not is_own(name)


def test_a_class_is_found_by_file_by_name_and_in_a_module(write, tmp_path, monkeypatch):
    file = write("my_sums.py", TASK)
    assert load_own(file)[0].__name__ == load_own(f"{file}:Sums")[0].__name__ == "Sums"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert load_own("my_sums:Sums")[0].__name__ == "Sums"
    sys.modules.pop("my_sums")


def test_all_functions_of_a_file_that_take_completions(write):
    more = "def right(completions, answer):\n    return []\n\ndef helper(x):\n    return x\n"
    assert [f.__name__ for f in load_own(write("r.py", REWARD + more))] == ["short", "right"]


def test_a_changed_file_is_read_anew_and_a_file_beside_it_can_be_imported(write):
    write("words_beside.py", "WORD = 'a'\n")
    first = load_own(write("r.py", "from words_beside import WORD\n" + REWARD))[0]
    assert load_own(write("r.py", REWARD.replace("1.0", "2.0")))[0] is not first
    assert first.__globals__["WORD"] == "a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def reward(:\n", r"own\.py, line 1: invalid syntax"),
        ("\nimport no_such_library\n", r"own\.py, line 2: ModuleNotFoundError: No module named 'no_such_lib"),
        ("x = 1\ny = x / 0\n", r"own\.py, line 2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('bye')\n", r"own\.py, line 2: SystemExit: bye"),
        ("def f(x): return x\n", r"no class with examples.* and no function that takes `completions`"),
        (TASK + TASK.replace("Sums", "More"), r"has the tasks Sums, More; name one, such as .*own\.py:Sums"),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence(write, text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load_own(write("own.py", text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("Nothing", "has no 'Nothing'; it has Sums"),
        ("Half", r"Half has no method reward\(self, example, text\)"),
        ("number", "is neither a class with"),
    ],
)
def test_a_wrong_name_in_a_file_is_named(write, attribute, words):
    file = write("own.py", TASK + "\nclass Half:\n    def examples(self, split, seed): ...\n\nnumber = 3\n")
    with pytest.raises(ConfigError, match=words):
        load_own(f"{file}:{attribute}")


def test_what_is_not_there_says_how_to_begin(tmp_path):
    with pytest.raises(ConfigError, match=r"No such file or directory; `shoestring task new .*none\.py`"):
        load_task(str(tmp_path / "none.py"))
    with pytest.raises(ConfigError, match="no module 'no_such_module'"):
        load_task("no_such_module:Task")
    with pytest.raises(ConfigError, match="os:system is neither a class"):
        load_task("os:system")
