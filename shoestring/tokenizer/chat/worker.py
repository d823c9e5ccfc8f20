"""A stranger's Jinja template, rendered in a child process that may be killed: the child's side.

Run as a script by `process.TemplateWorker`, never imported by the package. It imports nothing of the
package, so that it starts in a tenth of a second. Requests and replies are JSON, each after its length
in four bytes.
"""

import datetime
import json
import sys
from typing import Any, BinaryIO

MEMORY_BYTES = 512 << 20
CPU_SECONDS = 10  # a second line of defense: the parent kills by the clock long before
OPEN_FILES = 16


def main() -> None:
    """Answer one `{"compile": source}`, then `{"render": variables, ...}` until the pipe is closed."""
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
        except (
            Exception
        ) as error:  # whatever a hostile template raises is its fault, and the parent reports it
            send(
                replies, {"error": f"{type(error).__name__}: {error}"[:500].encode(errors="replace").decode()}
            )


def render(environment: Any, template: Any, request: dict[str, Any]) -> str:
    """The rendered text; raises OverflowError when it grows over the limit."""
    environment.generation_marks = request["generation_marks"]
    environment.stand_ins = request["stand_ins"]
    blocks, size = [], 0
    for block in template.generate(**request["render"]):
        size += len(block)
        if size > request["max_chars"]:
            raise OverflowError(f"the rendered conversation is longer than {request['max_chars']} characters")
        blocks.append(block)
    return "".join(blocks)


def build_environment() -> Any:
    """Jinja as transformers sets it up for chat templates (version 5), in the sandbox without mutation."""
    import jinja2.debug  # noqa: F401  loaded on the first error otherwise, when files can no longer be opened
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` blocks: what the assistant says, marked with two private characters."""

        tags = {"generation"}  # noqa: RUF012  as the base class declares it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

        def _marked(self, caller: Any) -> str:
            start, end = self.environment.generation_marks  # type: ignore[attr-defined]
            return f"{start}{caller()}{end}"

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def strftime_now(form: str) -> str:
        return datetime.datetime.now().strftime(form)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, **more: Any
    ) -> str:
        text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, **more)
        for stand_in, char in environment.stand_ins.items():
            # What the character itself becomes; if that is itself, its stand-in, which the parent turns back.
            as_json = json.dumps(char, ensure_ascii=ensure_ascii)[1:-1]
            escaped = json.dumps(stand_in, ensure_ascii=ensure_ascii)[1:-1]
            text = text.replace(escaped, stand_in if as_json == char else as_json)
        return text

    environment: Any = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.generation_marks, environment.stand_ins = "  ", {}  # every request brings its own
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    environment.from_string(
        "{% for i in [1] %}{{ i | tojson }}{% endfor %}"
    ).render()  # load what is loaded late
    return environment


def limit_resources() -> None:
    """Bound memory, files and processes, where the system knows such limits."""
    try:
        import resource
    except ImportError:  # Windows: the parent's clock and size limits still hold
        return
    wanted = {"RLIMIT_AS": MEMORY_BYTES, "RLIMIT_NOFILE": OPEN_FILES, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    for name, limit in {**wanted, "RLIMIT_NPROC": 0}.items():
        try:
            resource.setrlimit(getattr(resource, name), (limit, limit))
        except (ValueError, OSError, AttributeError):  # macOS refuses some
            continue


def extend_cpu_limit() -> None:
    """Allow the next request CPU_SECONDS more, then SIGXCPU ends the process."""
    try:
        import resource
    except ImportError:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(usage.ru_utime + usage.ru_stime)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (spent + CPU_SECONDS, hard))


def send(pipe: BinaryIO, message: dict[str, Any]) -> None:
    data = json.dumps(message, ensure_ascii=False).encode()
    pipe.write(len(data).to_bytes(4, "big") + data)
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """The next message, or None when the parent has closed the pipe."""
    head = pipe.read(4)
    return json.loads(pipe.read(int.from_bytes(head, "big"))) if len(head) == 4 else None


if __name__ == "__main__":
    main()
