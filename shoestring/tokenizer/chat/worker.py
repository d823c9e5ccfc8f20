"""Child process that renders a Jinja template, and may be killed: the child's side.

`process.TemplateProcess` runs it as a script; the package never imports it. It imports only message_text of
the package, so that it starts in a tenth of a second. Requests and replies are JSON, each after its length
in four bytes.
"""

import datetime
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))  # the parent's copy of the package

from shoestring.tokenizer.chat.message_text import (
    MessageText,
    as_message_text,
    escape_all,
    has_stand_ins,
    original,
    use_stand_ins,
)

MEMORY_BYTES = 512 << 20
CPU_SECONDS = 10  # for safety: the parent kills the child long before
OPEN_FILES = 16


def main() -> None:
    """Answer one request `{"compile": source}`, then `{"render": variables, ...}` until the pipe closes."""
    environment = build_environment()
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    limit_resources()
    send(replies, {"ready": True})
    template: Any = None
    while (request := receive(requests)) is not None:
        extend_cpu_limit()
        try:
            if "compile" in request:
                template = environment.from_string(request["compile"])
                reply: dict[str, Any] = {"text": ""}
            else:
                reply = {"text": render(environment, template, request)}
            send(replies, reply)
        except Exception as error:  # a template may raise anything; the parent reports it
            text = original(f"{type(error).__name__}: {error}")[:500]
            send(replies, {"error": text.encode(errors="replace").decode()})


class Null(str):
    """The content of a message that has none: None in comparisons and tests, empty text everywhere else.

    Some templates ask whether the content is none; others print it, add to it, or iterate over it.
    """

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return other is None or str.__eq__(self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __repr__(self) -> str:
        return "None"


class Arguments(dict[str, Any]):
    """Arguments of a tool call: an object for templates that write JSON, text for those that print text."""

    def __init__(self, fields: dict[str, Any], text: str | None) -> None:
        super().__init__(fields)
        self._text = text

    def __str__(self) -> str:
        return super().__str__() if self._text is None else self._text

    def __add__(self, other: object) -> Any:
        return self._json() + other if isinstance(other, str) else NotImplemented

    def __radd__(self, other: object) -> Any:
        return other + self._json() if isinstance(other, str) else NotImplemented

    def _json(self) -> str:
        if self._text is not None:
            return self._text
        return escape_all(json.dumps(original(dict(self)), ensure_ascii=False))


def prepare(message: Any) -> None:
    """Put Null and Arguments into a message; its arguments come as [object, text or None]."""
    if isinstance(message, dict) and message.get("content", "") is None:
        message["content"] = Null()
    for call in message.get("tool_calls") or [] if isinstance(message, dict) else []:
        arguments = call["function"].get("arguments")
        if isinstance(arguments, list):
            call["function"]["arguments"] = Arguments(*arguments)


def json_value(value: Any) -> Any:
    """The value with None for each Null and the original texts, for JSON."""
    if isinstance(value, dict):
        return {original(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return None if isinstance(value, Null) else original(value)


def render(environment: Any, template: Any, request: dict[str, Any]) -> str:
    """Render the template. Raises OverflowError when the text is longer than the limit."""
    environment.generation_marks = request["generation_marks"]
    use_stand_ins(request["stand_ins"])
    variables = {name: as_message_text(value) for name, value in request["render"].items()}
    for message in variables.get("messages") or []:
        prepare(message)
    blocks, size = [], 0
    for block in template.generate(**variables):
        size += len(block)
        if size > request["max_chars"]:
            raise OverflowError(f"the rendered conversation is longer than {request['max_chars']} characters")
        blocks.append(block)
    return "".join(blocks)


def build_environment() -> Any:
    """Jinja environment as in transformers 5, in Jinja's sandbox that forbids changes to objects."""
    import jinja2.debug  # noqa: F401  the first error would import it, when files can no longer be opened
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols

    class Generation(Extension):
        """`{% generation %}` blocks: text of the assistant, put between two private-use characters."""

        tags = {"generation"}  # noqa: RUF012  as the base class declares it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_add_marks"), [], [], body).set_lineno(line)

        def _add_marks(self, caller: Any) -> str:
            start, end = self.environment.generation_marks  # type: ignore[attr-defined]
            return f"{start}{caller()}{end}"

    def raise_exception(message: str) -> None:
        raise TemplateError(original(message))

    environment: Any = _environment_class()(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.generation_marks = "  "  # each request sets its own
    for name, function in environment.filters.items():
        environment.filters[name] = (_of_originals if name in OF_ORIGINALS else _keep)(function)
    environment.filters["tojson"] = tojson
    environment.tests["none"] = lambda value: value is None or isinstance(value, Null)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(original(form))
    environment.from_string(
        "{% for i in [1] %}{{ i | tojson }}{% endfor %}"
    ).render()  # Jinja imports some modules on the first rendering
    return environment


def _environment_class() -> Any:
    """Jinja's sandbox that forbids changes to objects; texts made from those of messages stay such texts."""
    from jinja2 import compiler, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Code(compiler.CodeGenerator):
        """Code in which `~` joins as the environment does, and `in` looks for a text's original."""

        def visit_Concat(self, node: nodes.Concat, frame: compiler.Frame) -> None:
            self.write("environment.concat(map(str, (")
            for part in node.nodes:
                self.visit(part, frame)
                self.write(", ")
            self.write(")))")

        def visit_Operand(self, node: nodes.Operand, frame: compiler.Frame) -> None:
            is_search = node.op in ("in", "notin")
            self.write(f" {compiler.operators[node.op]} {'environment.container' * is_search}(")
            self.visit(node.expr, frame)
            self.write(")")

    class Environment(ImmutableSandboxedEnvironment):
        code_generator_class = Code
        intercepted_binops = frozenset("%*")
        concat = staticmethod(lambda parts: as_message_text("".join(parts)))
        container = staticmethod(lambda value: MessageText(value) if type(value) is str else value)
        call_binop = _keep(ImmutableSandboxedEnvironment.call_binop)

        def call(self, context: Any, function: Any, /, *arguments: Any, **options: Any) -> Any:
            if type(owner := getattr(function, "__self__", None)) is str:
                function = getattr(MessageText(owner), function.__name__)
            return _keep(super().call)(context, function, *arguments, **options)

    return Environment


OF_ORIGINALS = frozenset(
    ["e", "escape", "float", "forceescape", "int", "striptags", "title", "urlencode", "urlize", "wordcount",
     "wordwrap", "xmlattr"]
)  # fmt: skip
"""Jinja's filters that read the characters of a text in ways of their own."""


def tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, **more: Any
) -> str:
    """The filter of transformers."""
    plain = json_value(value)
    text = json.dumps(plain, ensure_ascii=ensure_ascii, indent=indent, separators=separators, **more)
    return escape_all(text) if has_stand_ins(value) else text


def _keep(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; of a text with stand-ins it makes a MessageText."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        return as_message_text(result) if isinstance(result, str) else result

    return call


def _of_originals(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter of the original text; all of the result is then text of messages."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        result = function(*map(original, arguments), **options)
        return escape_all(result) if isinstance(result, str) and has_stand_ins(list(arguments)) else result

    return call


def limit_resources() -> None:
    """Limit memory, files and processes, where the system has such limits."""
    try:
        import resource
    except ImportError:  # Windows: the parent's clock and size limits still hold
        return
    limits = {"RLIMIT_AS": MEMORY_BYTES, "RLIMIT_NOFILE": OPEN_FILES, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    for name, limit in {**limits, "RLIMIT_NPROC": 0}.items():
        try:
            resource.setrlimit(getattr(resource, name), (limit, limit))
        except (ValueError, OSError, AttributeError):  # macOS refuses some
            continue


def extend_cpu_limit() -> None:
    """Allow CPU_SECONDS more for the next request; after that SIGXCPU ends the process."""
    try:
        import resource
    except ImportError:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(usage.ru_utime + usage.ru_stime)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (seconds + CPU_SECONDS, hard))


def send(pipe: BinaryIO, message: dict[str, Any]) -> None:
    data = json.dumps(message, ensure_ascii=False).encode()
    pipe.write(len(data).to_bytes(4, "big") + data)
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """Read the next message; None when the parent has closed the pipe."""
    head = pipe.read(4)
    return json.loads(pipe.read(int.from_bytes(head, "big"))) if len(head) == 4 else None


if __name__ == "__main__":
    main()
