"""Tasks by name: the right class with its options, and clear words for wrong names."""

import ast
from pathlib import Path

import pytest

from shoestring.errors import ConfigError
from shoestring.tasks import load
from shoestring.tasks.arithmetic import Arithmetic
from shoestring.tasks.load import load_task


def test_a_task_is_loaded_with_its_options():
    assert load_task("arithmetic") == Arithmetic()
    assert load_task("arithmetic", {"steps": 2}) == Arithmetic(steps=2)
    assert load_task("arithmetic").name == "arithmetic"


@pytest.mark.parametrize("name", ["", "arithmetik", "my task", "reasoning_gym:"])
def test_a_wrong_name_lists_the_right_ones(name):
    with pytest.raises(ConfigError, match=r"arithmetic.*gsm8k.*reasoning_gym:<generator>"):
        load_task(name)


@pytest.mark.parametrize(
    ("options", "words"), [({"stepz": 1}, "stepz"), ({"steps": "many"}, "steps"), ({"steps": 99}, "steps")]
)
def test_a_wrong_option_is_named(options, words):
    with pytest.raises(ConfigError, match=words):
        load_task("arithmetic", options)


def test_every_name_leads_to_a_class_of_this_package():
    package = Path(load.__file__).parent
    for target in load.TASKS.values():
        module, _, name = target.removeprefix("shoestring.tasks.").partition(":")
        path = package / f"{module.replace('.', '/')}.py"
        if not path.exists():
            pytest.fail(f"{target}: there is no {path}")
        classes = [n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)]
        assert name in classes
