"""Tracing: one trace from an HTTP request over its events to the model call.

`inject` returns the headers that carry the current trace to an event or an outgoing call, and `consumer_span` continues
that trace on the other side. Trace ids are valid without an exporter too, because every problem that a client sees has
one. Spans hold no message content, personal data or secrets, and no text of exceptions, which may quote them.
`telemetry.configure` sets up the exporter; this module needs only OpenTelemetry's API, so a command imports it quickly.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

PROPAGATOR: Final = TraceContextTextMapPropagator()
_TRACER: Final = trace.get_tracer("flotilla")


def inject() -> dict[str, str]:
    """Return the headers `traceparent` and `tracestate` of the current span, or no headers without one."""
    carrier: dict[str, str] = {}
    PROPAGATOR.inject(carrier)
    return carrier


def trace_id() -> str:
    """Return the id of the current trace as 32 hex digits; outside of a trace, return a new id for the log."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id if context.is_valid else secrets.randbits(128))


@contextmanager
def consumer_span(attributes: Mapping[str, str], span_name: str, **attrs: str | int) -> Iterator[Span]:
    """Open the span of a received message, as a child of the `traceparent` among its attributes."""
    with _open(span_name, SpanKind.CONSUMER, attrs, PROPAGATOR.extract(attributes, Context())) as current:
        yield current


@contextmanager
def client_span(span_name: str, **attrs: str | int) -> Iterator[Span]:
    """Open the span of an outgoing call, such as one to a model, as a child of the current span."""
    with _open(span_name, SpanKind.CLIENT, attrs) as current:
        yield current


@contextmanager
def _open(name: str, kind: SpanKind, attrs: Mapping[str, str | int], parent: Context | None = None) -> Iterator[Span]:
    """Open a span that records the type of an exception, and not its text."""
    with _TRACER.start_as_current_span(
        name, parent, kind, attrs, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except Exception as error:
            current.set_attribute("error.type", type(error).__qualname__)
            current.set_status(StatusCode.ERROR)
            raise
