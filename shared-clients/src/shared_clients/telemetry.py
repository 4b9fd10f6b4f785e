"""What a process says about itself while it works: log lines, and one trace from HTTP over the event to the model call.

`configure` is called once, by whatever starts the process, before anything else. FastAPI then opens a span per request,
`inject` puts it on an event or an outgoing call, and `continued` takes it up on the other side. Trace ids are valid
with and without an exporter, because every problem that a client sees carries one. Neither spans nor log fields carry
message content, personal data or secrets, and spans do not carry the text of exceptions, which may quote them.
"""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

import structlog
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.typing import EventDict, Processor, WrappedLogger

_PROPAGATOR = TraceContextTextMapPropagator()
_TRACER = trace.get_tracer("flotilla")
_FRESH_IDS = RandomIdGenerator()
_CHATTY = ("httpx", "httpcore", "httpx2", "aiokafka.consumer.fetcher", "uvicorn.error")
"""Libraries that write at `info` what only a debugger wants to read."""
_UNSPEAKABLE = frozenset(
    {"api_key", "authorization", "body", "content", "cookie", "data", "headers", "key", "password", "prompt", "secret"}
    | {"text", "token"}
)
"""Names of log fields whose values are never written, whoever passed them."""


def configure(
    service: str, *, level: str = "info", json: bool, otlp_endpoint: str | None = None, ratio: float = 1.0
) -> None:
    """Set up the logging and tracing of this process; called again, it replaces the logging only.

    Args:
        service: the name under which spans appear.
        level: the least severe level written (`debug`, `info`, `warning`, `error`).
        json: one JSON object a line, for pods; otherwise text for people, in colour on a terminal.
        otlp_endpoint: base URL of an OpenTelemetry collector (OTLP over HTTP). Without it nothing is recorded or sent,
            and trace ids still go from hop to hop.
        ratio: the share recorded of the traces that no caller has decided about.
    """
    _configure_logging(logging.getLevelNamesMapping()[level.upper()], json=json)
    propagate.set_global_textmap(_PROPAGATOR)
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    sampler = ParentBased(TraceIdRatioBased(ratio) if otlp_endpoint else ALWAYS_OFF)
    provider = TracerProvider(sampler=sampler, resource=Resource.create({"service.name": service}))
    if otlp_endpoint:
        exporter = OTLPSpanExporter(endpoint=f"{otlp_endpoint.rstrip('/')}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def inject() -> dict[str, str]:
    """Return `traceparent` (and `tracestate`) of the current span; nothing where there is none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier


def trace_id() -> str:
    """Return the current trace's id as 32 hex digits; outside of any trace a fresh one, to find a log line by."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id if context.is_valid else _FRESH_IDS.generate_trace_id())


@contextmanager
def continued(attributes: Mapping[str, str], span_name: str, **attrs: str | int) -> Iterator[Span]:
    """Work on a message, in a span below the `traceparent` among the message's attributes, where it has one."""
    with _open(span_name, SpanKind.CONSUMER, attrs, _PROPAGATOR.extract(attributes, Context())) as current:
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


def _configure_logging(level: int, *, json: bool) -> None:
    """Send structlog and the standard library's loggers through the same processors to stderr."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
        _withhold,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    rendering: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if json
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    out = _Out(sys.stderr)
    out.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [*(other for other in root.handlers if not isinstance(other, _Out)), out]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


class _Out(logging.StreamHandler[TextIO]):
    """Where our log lines go; known by its type, so that a second `configure` replaces only its own."""


def _add_trace(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        fields.setdefault("trace_id", trace.format_trace_id(context.trace_id))
    return fields


def _withhold(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    for name in _UNSPEAKABLE & fields.keys():
        fields[name] = "[withheld]"
    return fields
