import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shoestring.errors import MissingDependencyError
from shoestring.serve.backends.reply import Usage
from shoestring.serve.tracing import ENDPOINT, SpanObserver, trace_observer
from shoestring.serve.watch import Course

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECOND = 1_000_000_000


def spans_of(**fields):
    """The spans of a request by name."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    SpanObserver(provider)(Course(route="/v1/messages", begin_s=100.0, **fields))
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_reply_has_its_parts_inside_its_request():
    usage = Usage(prompt_tokens=5, completion_tokens=7)
    times = {"work_s": 101.0, "first_token_s": 103.0, "end_s": 107.0}
    spans = spans_of(status=200, model="m", usage=usage, request_id="req_1", trace=TRACE, **times)
    lengths = {name: (span.end_time - span.start_time) / SECOND for name, span in spans.items()}
    assert lengths == {"/v1/messages": 7, "queue": 1, "first token": 2, "reply": 4}
    request = spans.pop("/v1/messages")
    assert all(span.parent.span_id == request.context.span_id for span in spans.values())
    assert f"{request.context.trace_id:032x}" == TRACE.split("-")[1]
    assert f"{request.parent.span_id:016x}" == TRACE.split("-")[2]
    assert dict(request.attributes) == {
        "http.route": "/v1/messages",
        "http.response.status_code": 200,
        "shoestring.request_id": "req_1",
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 7,
    }


def test_a_reply_without_a_token_has_no_parts_that_were_not():
    spans = spans_of(status=503, model="m", work_s=101.0, end_s=102.0, trace="nonsense")
    assert list(spans) == ["queue", "first token", "/v1/messages"]
    assert not spans["/v1/messages"].status.is_ok
    assert list(spans_of(status=404, end_s=102.0)) == ["/v1/messages"]


def test_without_an_endpoint_there_are_no_traces(monkeypatch):
    monkeypatch.delenv(ENDPOINT, raising=False)
    assert trace_observer() is None


def test_an_endpoint_without_the_library_is_an_error(monkeypatch):
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingDependencyError, match="otel"):
        trace_observer()
