"""The option --task: names with options after commas, also where the options have commas of their own."""

import pytest

from shoestring.cli.tasks import eval_settings, read_task, rl_settings
from shoestring.config import override
from shoestring.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("countdown", "countdown", {}),
        ("countdown,numbers=4", "countdown", {"numbers": 4}),
        ("r.py:f,data=a,b.jsonl", "r.py:f", {"data": "a,b.jsonl"}),
        ("r.py,weights=[1, 2.5],data=x.csv", "r.py", {"weights": [1, 2.5], "data": "x.csv"}),
        (
            'judge,judge={url="http://x/v1,y=1",remote={model="m"}},columns.prompt=text',
            "judge",
            {"judge": {"url": "http://x/v1,y=1", "remote": {"model": "m"}}, "columns": {"prompt": "text"}},
        ),
        ('a b.py , data = "x=1,y=2"', "a b.py", {"data": "x=1,y=2"}),
    ],
)
def test_a_task_and_its_options(text, name, options):
    assert read_task(text) == (name, options)
    own_name, settings = eval_settings(text)
    assert (own_name, override({}, settings).get("options", {})) == (name, options)
    [setting] = rl_settings([text])
    assert override({}, [setting]) == {"tasks": [{"name": name, "options": options}]}


def test_harness_tasks_keep_their_commas():
    assert eval_settings("lm_eval:arc_easy,mmlu") == ("lm_eval:arc_easy,mmlu", [])
    assert rl_settings([]) == []


def test_an_option_needs_a_value():
    assert read_task("countdown,numbers") == ("countdown,numbers", {})
    with pytest.raises(ConfigError, match="name=value"):
        override({}, ["numbers"])
