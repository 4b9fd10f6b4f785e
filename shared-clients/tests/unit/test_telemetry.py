"""One trace from HTTP over an event to a model call, valid ids without an exporter, and log lines without secrets."""

import json
import logging
from collections.abc import Iterator
from typing import Final

import pytest
import structlog
from fastapi import APIRouter
from httpx import ASGITransport, AsyncClient
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service_process.web import create_app
from shared_clients import telemetry, tracing

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
SAMPLED: Final = f"00-{TRACE}-b7ad6b7169203331-01"
UNSAMPLED: Final = f"00-{TRACE}-b7ad6b7169203331-00"


@pytest.fixture(autouse=True)
def configured() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    before = structlog.get_config()
    telemetry.configure("test", json=True)
    yield
    root.handlers, root.level = handlers, level
    structlog.configure(**before)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    exporter = InMemorySpanExporter()
    processor = SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    yield exporter
    processor.shutdown()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


async def ready() -> None:
    return


async def follow(traceparent: str, *, public: bool = False) -> list[str]:
    """Go from a request over an event to a model call; return the trace id seen at each."""
    seen: list[str] = []
    router = APIRouter()

    @router.get("/accept")
    async def accept() -> dict[str, str]:
        seen.append(tracing.trace_id())
        return tracing.inject()

    app = create_app("test", routers=[router], ready=ready, public=public)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        event = (await client.get("/accept", headers={"traceparent": traceparent} if traceparent else {})).json()
    with tracing.consumer_span(event, "process request.created", turn=1):
        seen.append(tracing.trace_id())
        with tracing.client_span("chat scripted", model="echo"):
            seen.append(tracing.trace_id())
            seen.append(tracing.inject()["traceparent"].split("-")[1])
    return seen


@pytest.mark.parametrize("traceparent", [SAMPLED, UNSAMPLED])
async def test_a_callers_trace_goes_from_http_over_the_event_to_the_model(traceparent: str) -> None:
    assert set(await follow(traceparent)) == {TRACE}


@pytest.mark.parametrize("traceparent", [SAMPLED, UNSAMPLED])
async def test_trace_of_a_stranger_is_not_continued_by_a_public_app(traceparent: str) -> None:
    seen = set(await follow(traceparent, public=True))
    assert len(seen) == 1
    assert seen != {TRACE}


async def test_a_trace_that_begins_here_has_one_valid_id_without_any_exporter() -> None:
    seen = set(await follow(""))
    assert len(seen) == 1
    assert int(seen.pop(), 16) > 0


@pytest.mark.parametrize("traceparent", ["nonsense", "00-0-0-00", f"ff-{TRACE}-b7ad6b7169203331-01", "00-" + "0" * 32])
async def test_a_traceparent_that_is_none_begins_a_new_trace(traceparent: str) -> None:
    seen = set(await follow(traceparent))
    assert len(seen) == 1
    assert seen != {TRACE}


async def test_a_sampled_trace_is_recorded_hop_by_hop(spans: InMemorySpanExporter) -> None:
    await follow(SAMPLED)
    found = by_name(spans)
    assert set(found) == {"GET /accept", "process request.created", "chat scripted"}
    http, event, model = found["GET /accept"], found["process request.created"], found["chat scripted"]
    assert http.context is not None
    assert event.context is not None
    assert event.parent is not None
    assert event.parent.span_id == http.context.span_id
    assert model.parent is not None
    assert model.parent.span_id == event.context.span_id
    assert dict(model.attributes or {}) == {"model": "echo"}


async def test_a_failure_is_recorded_by_its_type_and_not_its_text(spans: InMemorySpanExporter) -> None:
    with pytest.raises(RuntimeError), tracing.consumer_span({"traceparent": SAMPLED}, "failing"):
        raise RuntimeError("the person's secret")
    failed = by_name(spans)["failing"]
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "RuntimeError"
    assert "secret" not in failed.to_json()


async def test_probes_are_not_traced(spans: InMemorySpanExporter) -> None:
    app = create_app("test", routers=[], ready=ready)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        for address in ("/livez", "/readyz", "/metrics"):
            await client.get(address, headers={"traceparent": SAMPLED})
    assert not spans.get_finished_spans()


def test_an_event_does_not_inherit_whatever_ran_before_it() -> None:
    with tracing.consumer_span({"traceparent": UNSAMPLED}, "one"), tracing.consumer_span({}, "two"):
        assert tracing.trace_id() != TRACE


def test_outside_of_any_trace_each_id_is_fresh_and_valid() -> None:
    assert tracing.inject() == {}
    first, second = tracing.trace_id(), tracing.trace_id()
    assert first != second
    assert len(bytes.fromhex(first)) == 16


def test_log_lines_are_json_with_the_trace_and_from_all_loggers(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("test", json=True)
    with tracing.consumer_span({"traceparent": UNSAMPLED}, "work"):
        structlog.get_logger("ours").info("request_accepted", request_id="r-1")
        logging.getLogger("alembic").warning("upgraded %s", "schema")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["request_accepted", "upgraded schema"]
    assert {line["trace_id"] for line in lines} == {TRACE}
    assert lines[0]["request_id"] == "r-1"
    assert lines[0]["level"] == "info"
    assert lines[1]["logger"] == "alembic"


@pytest.mark.parametrize("field", ["authorization", "content", "cookie", "key", "password", "secret", "token", "body"])
def test_secret_fields_are_withheld(capsys: pytest.CaptureFixture[str], field: str) -> None:
    for as_json in (True, False):
        telemetry.configure("test", json=as_json)
        structlog.get_logger("ours").info("something", **{field: "hunter2"})
        assert "hunter2" not in capsys.readouterr().err


def fail_holding(secret: str) -> None:
    raise ValueError(len(secret))


def test_a_stack_is_logged_without_the_values_of_variables(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (True, False):
        telemetry.configure("test", json=as_json)
        try:
            fail_holding(f"hunter{len('..')}")
        except ValueError:
            structlog.get_logger("ours").exception("loop_crashed")
        logged = capsys.readouterr().err
        assert "ValueError: 7" in logged
        assert "hunter2" not in logged


def test_configuring_again_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        telemetry.configure("test", json=True, level="warning")
    logging.getLogger("ours").warning("once")
    logging.getLogger("ours").info("never")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_libraries_that_chatter_are_quiet_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("test", json=True, level="info")
    logging.getLogger("httpx").info("HTTP Request: POST http://test/?key=hunter2")
    assert not capsys.readouterr().err
