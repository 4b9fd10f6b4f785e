"""One trace from HTTP over the event to the model call: spans, and the header that carries a trace on.

`inject` puts the current span on an event or an outgoing call, and `continued` takes it up on the other side. Trace ids
are valid with and without an exporter, because every problem that a client sees carries one. Spans carry no message
content, personal data or secrets, and no text of exceptions, which may quote them. `telemetry.configure` sets up the
exporter; this module needs only OpenTelemetry's API, so that a command imports it quickly.
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
    """Return `traceparent` (and `tracestate`) of the current span; nothing where there is none."""
    carrier: dict[str, str] = {}
    PROPAGATOR.inject(carrier)
    return carrier


def trace_id() -> str:
    """Return the current trace's id as 32 hex digits; outside of any trace a fresh one, to find a log line by."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id if context.is_valid else secrets.randbits(128))


@contextmanager
def continued(attributes: Mapping[str, str], span_name: str, **attrs: str | int) -> Iterator[Span]:
    """Work on a message, in a span below the `traceparent` among the message's attributes, where it has one."""
    with _open(span_name, SpanKind.CONSUMER, attrs, PROPAGATOR.extract(attributes, Context())) as current:
        yield current


@contextmanager
def span(span_name: str, **attrs: str | int) -> Iterator[Span]:
    """Call something outside, such as a model, in a span of its own below the current one."""
    with _open(span_name, SpanKind.CLIENT, attrs) as current:
        yield current


@contextmanager
def _open(name: str, kind: SpanKind, attrs: Mapping[str, str | int], parent: Context | None = None) -> Iterator[Span]:
    """Open a span that tells the type of an exception and not its text."""
    with _TRACER.start_as_current_span(
        name, parent, kind, attrs, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except Exception as error:
            current.set_attribute("error.type", type(error).__qualname__)
            current.set_status(StatusCode.ERROR)
            raise
