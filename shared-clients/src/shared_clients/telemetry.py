"""The logging and tracing of a process, which `configure` sets up once at its start.

Log fields hold no message content, personal data or secrets.
"""

import logging
import sys
from typing import TextIO

import requests
import structlog
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from structlog.typing import EventDict, Processor, WrappedLogger

from shared_clients.tracing import PROPAGATOR

_VERBOSE_LIBRARIES = ("httpx", "httpcore", "httpx2", "aiokafka.consumer.fetcher", "uvicorn.error")
"""Libraries that log details for debugging at the level `info`."""
_WITHHELD_FIELDS = frozenset(
    {"api_key", "authorization", "body", "content", "cookie", "data", "headers", "key", "password", "prompt", "secret"}
    | {"text", "token"}
)
"""Names of log fields whose values are never written."""


def configure(
    service: str, *, level: str = "info", json: bool, otlp_endpoint: str | None = None, ratio: float = 1.0
) -> None:
    """Set up the logging and tracing of this process; a second call replaces only the logging.

    Args:
        service: the name under which spans appear.
        level: the least severe level written (`debug`, `info`, `warning`, `error`).
        json: write one JSON object a line, for pods; otherwise text for people, in colour on a terminal.
        otlp_endpoint: base URL of an OpenTelemetry collector (OTLP over HTTP). Without it no span is recorded or sent,
            and trace ids still travel from service to service.
        ratio: the share of traces that is recorded, where the caller has not decided.
    """
    _configure_logging(logging.getLevelNamesMapping()[level.upper()], json=json)
    propagate.set_global_textmap(PROPAGATOR)
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    sampler = ParentBased(TraceIdRatioBased(ratio) if otlp_endpoint else ALWAYS_OFF)
    provider = TracerProvider(sampler=sampler, resource=Resource.create({"service.name": service}))
    if otlp_endpoint:
        exporter = OTLPSpanExporter(endpoint=f"{otlp_endpoint.rstrip('/')}/v1/traces", session=collector_session())
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def collector_session() -> requests.Session:
    """Return the exporter's HTTP session, without redirects, and without proxies and passwords of the environment."""
    session = requests.Session()
    session.trust_env = False
    session.max_redirects = 0
    return session


def _configure_logging(level: int, *, json: bool) -> None:
    """Send structlog and the standard library's loggers through the same processors to stderr."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
        _redact_secrets,
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
    handler = _LogOutput(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [*(other for other in root.handlers if not isinstance(other, _LogOutput)), handler]
    root.setLevel(level)
    for name in _VERBOSE_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


class _LogOutput(logging.StreamHandler[TextIO]):
    """The output of `configure`; its type shows a second call which output to replace."""


def _add_trace(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        fields.setdefault("trace_id", trace.format_trace_id(context.trace_id))
    return fields


def _redact_secrets(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    for name in _WITHHELD_FIELDS & fields.keys():
        fields[name] = "[withheld]"
    return fields
