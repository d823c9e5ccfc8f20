"""The file that `shoestring task new` writes works as it is, and a check finds what is wrong with a task."""

import runpy

import pytest

from shoestring.errors import ConfigError
from shoestring.tasks.custom.check import check_task
from shoestring.tasks.custom.template import write_template
from shoestring.tasks.load import load_task


def test_the_template_passes_its_own_test_and_all_checks(tmp_path):
    path = write_template(str(tmp_path / "my_letters"))
    assert path.name == "my_letters.py"
    runpy.run_path(str(path))["test_rewards"]()
    task = load_task(str(path))
    assert type(task.own).__name__ == "MyLetters"
    findings = list(check_task(task, "it"))
    assert all(finding.ok for finding in findings), findings
    assert findings[-1].text == "1.0 for the answer itself, 0.0 for nothing"


@pytest.mark.parametrize(("name", "words"), [("1", "no name"), ("class", "my_task"), ("there", "is there")])
def test_names_that_cannot_be(tmp_path, name, words):
    (tmp_path / "there.py").touch()
    if name == "class":
        assert write_template(str(tmp_path / name)).exists()  # its class is called Class
        return
    with pytest.raises(ConfigError, match=words):
        write_template(str(tmp_path / name))


def test_a_check_finds_what_is_wrong(write):
    text = """
    import random

    class Own:
        def examples(self, split, seed):
            for n in range(9):
                yield {"question": f"{n} {random.random() if split == 'train' else ''}", "answer": n}

        def reward(self, example, text):
            return float(int(text) > -1)
    """
    findings = {finding.name: finding for finding in check_task(load_task(write("own.py", text)), "own")}
    assert not findings["same seed, same examples"].ok
    assert findings["test examples"].ok
    assert findings["odd replies"].text == "exception for the reply ''"
