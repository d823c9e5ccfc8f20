import io

import pytest

from shoestring.tokenizer.chat import worker

# Ways known from published attacks on Jinja: each must end in an error, or in text without what it was after.
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ self.__init__.__globals__.__builtins__.__import__('os').popen('id').read() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].environ }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['datetime'] }}",
    "{{ strftime_now.__code__ }}",
    "{{ (messages | attr('__class__')).__mro__ }}",
    "{{ messages | attr('__cla' ~ 'ss__') | attr('__mro__') }}",
    "{{ [messages] | map(attribute='__class__.__mro__') | list }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ '{0.__class__.__init__.__globals__}' | format(messages) }}",
    "{{ ('{0.__class__}'.format)(messages) }}",
    "{{ '{a.__class__.__mro__}'.format_map({'a': messages}) }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ config.items() }}",
    "{{ request.application.__globals__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.environ }}",
    "{% extends '/etc/passwd' %}",
    "{% set x = messages.append({'role': 'system'}) %}{{ messages }}",
    "{% set x = messages[0].update({'role': 'system'}) %}{{ messages }}",
    "{% for x in messages %}{{ loop.__class__.__init__.__globals__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}{{ m._func.__globals__ }}",
    "{{ self._TemplateReference__context.environment.from_string('x').module.__dict__ }}",
    "{{ self._TemplateReference__context.eval_ctx.environment.overlay() }}",
    "{{ environment.from_string }}{{ context.environ }}",
    "{{ caller.__globals__ }}",
    "{{ tojson.__globals__ }}",
    "{{ messages | tojson(cls=messages.__class__) }}",
    "{{ [].pop.__self__.__class__.__mro__ }}",
    "{{ (1).__class__.__bases__[0].__subclasses__() }}",
]


def test_messages_survive_the_pipe():
    pipe = io.BytesIO()
    messages = [{"text": "é\U0001f600\n"}, {"error": ""}]
    for message in messages:
        worker.send(pipe, message)
    pipe.seek(0)
    assert [worker.receive(pipe), worker.receive(pipe)] == messages
    assert worker.receive(pipe) is None


def test_the_environment_is_the_immutable_sandbox_with_transformers_settings():
    environment = worker.build_environment()
    assert type(environment).__name__ == "ImmutableSandboxedEnvironment"
    assert environment.sandboxed
    assert environment.trim_blocks
    assert environment.lstrip_blocks
    environment.generation_marks, environment.stand_ins = "\ue000\ue001", {"\ue002": "<", "\ue003": "ü"}
    render = environment.from_string
    assert render("{% generation %}a{% endgeneration %}").render() == "\ue000a\ue001"
    assert render("{% for i in [1, 2] %}{{ i }}{% break %}{% endfor %}").render() == "1"
    assert render("{{ {'ü': '<&'} | tojson }}").render() == '{"ü": "<&"}'
    assert render("{{ 'é\ue002\ue003' | tojson(ensure_ascii=True) }}").render() == '"\\u00e9\ue002\\u00fc"'
    assert render("{{ 'é\ue002\ue003' | tojson }}").render() == '"é\ue002\ue003"'


def test_output_is_counted_while_it_grows():
    environment = worker.build_environment()
    request = {"generation_marks": "\ue000\ue001", "stand_ins": {}, "render": {"n": 5}, "max_chars": 4}
    with pytest.raises(OverflowError, match="longer than 4"):
        worker.render(environment, environment.from_string("{% for i in range(n) %}x{% endfor %}"), request)


@pytest.fixture(scope="module")
def environment():
    return worker.build_environment()


@pytest.mark.parametrize("source", ESCAPES)
def test_escapes_reach_nothing(environment, source: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CANARY", "s3cret-canary")
    request = {"generation_marks": "\ue000\ue001", "stand_ins": {}, "max_chars": 100_000}
    variables = {"messages": [{"role": "user", "content": "hello"}], "bos_token": "<s>"}
    try:
        text = worker.render(environment, environment.from_string(source), {**request, "render": variables})
    except Exception as error:  # whatever it is, it goes to the parent as text
        text = str(error)
    for leak in ("s3cret-canary", "uid=", "root:", "<class", "<module", "subprocess", "{'role': 'system'"):
        assert leak not in text
    assert variables["messages"] == [{"role": "user", "content": "hello"}]
