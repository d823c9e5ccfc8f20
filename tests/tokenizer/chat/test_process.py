import os
import sys
import time
from pathlib import Path

import pytest

from shoestring.errors import TokenizerError
from shoestring.tokenizer.chat.process import TemplateProcess

VARIABLES = {"messages": [{"role": "user", "content": "hello"}], "bos_token": "<s>"}
MARKS: dict = {"generation_marks": "\ue000\ue001", "stand_ins": {}}

BOMBS = {
    "a long loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a long output": "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    "one long block": "{{ 'x' * 900000000 }}",
    "a long constant": "{{ 'x' * 100000 * 100000 }}",
    "a huge number": "{{ 9 ** (9 ** 9) }}",
    "a huge list": "{{ [1] * 999999999 }}",
    "doubling": "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "branches": "{% macro f(n) %}{% if n %}{{ f(n-1) + f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "deep nesting": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "many nested blocks": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "a wide format": "{{ '%999999999d' | format(1) }}",
    "a wide center": "{{ 'x' | center(999999999) }}",
    "a large range": "{{ range(999999999) | list }}",
    "a slow replace": "{{ ('a' * 60000).replace('', 'b' * 60000) }}",
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_child_knows_no_secret_of_ours(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET", "canary")
    worker = TemplateProcess("x")
    worker.render(VARIABLES, **MARKS)
    assert worker._child is not None
    assert b"canary" not in Path(f"/proc/{worker._child.pid}/environ").read_bytes()
    worker.close()


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_stopped_in_time(name: str):
    worker = TemplateProcess(BOMBS[name], time_limit_s=0.5)
    start = time.monotonic()
    with pytest.raises(TokenizerError, match="chat template"):
        worker.render(VARIABLES, **MARKS)
    assert time.monotonic() - start < 8, "the limits did not hold"
    worker.close()


def test_a_stopped_template_is_started_again():
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
    source = "{% if messages[0].content == 'bomb' %}" + loop
    worker = TemplateProcess(source + "{% endfor %}{% endif %}fine", time_limit_s=0.5)
    for _ in range(2):
        assert worker.render(VARIABLES, **MARKS) == "fine"
        with pytest.raises(TokenizerError, match=r"more than 0\.5 s"):
            worker.render({"messages": [{"content": "bomb"}]}, **MARKS)
    assert worker.render(VARIABLES, **MARKS) == "fine"
    worker.close()


def test_the_same_child_answers_until_it_is_closed():
    worker = TemplateProcess("{{ messages[0].content }}")
    worker.render(VARIABLES, **MARKS)
    child = worker._child
    assert child is not None
    worker.render(VARIABLES, **MARKS)
    assert worker._child is child
    worker.close()
    assert child.poll() is not None


def test_the_child_ends_with_its_owner():
    worker = TemplateProcess("x")
    worker.render(VARIABLES, **MARKS)
    assert worker._child is not None
    number = worker._child.pid
    del worker
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_a_child_killed_from_outside_is_replaced():
    worker = TemplateProcess("fine")
    worker.render(VARIABLES, **MARKS)
    assert worker._child is not None
    worker._child.kill()
    worker._child.wait()
    assert worker.render(VARIABLES, **MARKS) == "fine"
    worker.close()


@pytest.mark.parametrize(
    "source", ["{% if %}", "{{ x", "{% unknown %}", "{{ x | nofilter }}", "{{ '\\ud800' }}"]
)
def test_wrong_templates_are_reported(source: str):
    worker = TemplateProcess(source)
    with pytest.raises(TokenizerError, match="cannot render"):
        worker.render(VARIABLES, **MARKS)
    worker.close()


def test_the_limit_of_output_is_a_mebibyte():
    worker = TemplateProcess("{% for i in range(n) %}{{ 'x' * 1024 }}{% endfor %}")
    assert len(worker.render({"n": 1024}, **MARKS)) == 1 << 20
    with pytest.raises(TokenizerError, match="longer than 1048576"):
        worker.render({"n": 1025}, **MARKS)
    worker.close()
