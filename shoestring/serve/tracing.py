"""Traces for OpenTelemetry: a span for each request; its waiting, first token and reply are spans inside."""

import os
from typing import Any

from shoestring.errors import MissingDependencyError
from shoestring.serve.watch import Course, Observer

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
NANOSECONDS = 1_000_000_000


def trace_observer() -> Observer | None:
    """Send spans where the environment says; None when it says nothing.

    The SDK reads its own variables: OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS.
    Raises MissingDependencyError without the extra `otel`.
    """
    if not os.environ.get(ENDPOINT):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        way_out = "pip install 'shoestring-llm[otel]', or unset it"
        raise MissingDependencyError(f"{ENDPOINT} is set, and OpenTelemetry is missing: {way_out}") from None
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return SpanObserver(provider)


class SpanObserver:
    """Spans of requests that have ended; there is nothing of a prompt in them."""

    def __init__(self, provider: Any) -> None:
        """`provider` is a TracerProvider of OpenTelemetry's SDK."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("shoestring")
        self._propagator = TraceContextTextMapPropagator()

    def __call__(self, course: Course) -> None:
        """Make the spans of a request, below the client's own if it sent one."""
        from opentelemetry import trace

        above = self._propagator.extract({"traceparent": course.trace})
        attributes: dict[str, Any] = {
            "http.route": course.route,
            "http.response.status_code": course.status,
            "shoestring.request_id": course.request_id,
        }
        if course.model:
            attributes |= {
                "gen_ai.request.model": course.model,
                "gen_ai.usage.input_tokens": course.usage.prompt_tokens,
                "gen_ai.usage.output_tokens": course.usage.completion_tokens,
            }
        span = self._tracer.start_span(
            course.route, above, start_time=_nanoseconds(course.begin_s), attributes=attributes
        )
        if course.status >= 500:
            span.set_status(trace.Status(trace.StatusCode.ERROR))
        inside = trace.set_span_in_context(span, above)
        times = [course.begin_s, course.work_s, course.first_token_s, course.end_s]
        moments = [time for time in times if time is not None]
        if course.work_s is not None:
            for name, begin_s, end_s in zip(
                ("queue", "first token", "reply"), moments, moments[1:], strict=False
            ):
                part = self._tracer.start_span(name, inside, start_time=_nanoseconds(begin_s))
                part.end(_nanoseconds(end_s))
        span.end(_nanoseconds(course.end_s))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * NANOSECONDS)
