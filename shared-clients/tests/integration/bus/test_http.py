"""The two sides of the bus over HTTP, each against a counterpart that answers what a test wants, on real sockets."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from httpx import ASGITransport, AsyncClient
from structlog.testing import capture_logs

from shared_clients.bus import http as bus_http
from shared_clients.bus.http import HttpBus
from shared_clients.bus.port import Message
from shared_clients.errors import Permanent, Transient
from tests.cloudevents_cases import BASE, BATCHED
from tests.simulators.doors import BROKER_AUTHENTICATION, door_of, serving
from tests.simulators.eventing import SECRET

EVENT = Message("t", BASE["partitionkey"], BASE, b'{"a": 1.10}')
BEARER = {"Authorization": f"Bearer {SECRET}"}
HEADERS = {f"ce-{name}": value for name, value in BASE.items()}


@dataclass
class Ingress:
    """A broker's ingress that answers what it is told to, one after another, and 202 at the end."""

    answers: list[Response] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    two: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[HttpBus]:
        app = FastAPI()
        app.state.draining = asyncio.Event()
        app.add_api_route("/ingress", self.receive, methods=["POST"])
        self.gate.set()
        async with serving(app) as url:
            bus = HttpBus(f"{url}/ingress", BROKER_AUTHENTICATION)
            yield bus
            await bus.close()

    async def receive(self, request: Request) -> Response:
        self.requests.append((dict(request.headers), await request.body()))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.at_once == 2:
            self.two.set()
        await self.gate.wait()
        self.at_once -= 1
        return self.answers.pop(0) if self.answers else Response(status_code=202)


@pytest.fixture
def ingress() -> Ingress:
    return Ingress()


@pytest.fixture
async def bus(ingress: Ingress) -> AsyncIterator[HttpBus]:
    async with ingress.open() as bus:
        yield bus


async def test_an_event_goes_out_in_binary_mode_with_our_token(ingress: Ingress, bus: HttpBus) -> None:
    await bus.publish(EVENT)
    [(headers, body)] = ingress.requests
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert {name: headers[name] for name in HEADERS} == HEADERS
    assert body == EVENT.data


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_any_success_says_that_the_event_is_safe(ingress: Ingress, bus: HttpBus, status: int) -> None:
    ingress.answers.append(Response(status_code=status))
    await bus.publish(EVENT)


@pytest.mark.parametrize("status", [404, 408, 409, 425, 429, 500, 502, 503, 504, 599])
async def test_what_may_pass_leaves_the_event_with_its_outbox(ingress: Ingress, bus: HttpBus, status: int) -> None:
    ingress.answers.append(Response(status_code=status, headers={"Retry-After": "7"}))
    with pytest.raises(Transient, match=f"it answered {status}") as raised:
        await bus.publish(EVENT)
    assert raised.value.retry_after == 7
    await bus.publish(EVENT)


@pytest.mark.parametrize("after", ["", "soon", "-1", "٣", "Wed, 21 Oct 2026 07:28:00 GMT"])
async def test_a_pause_that_is_no_number_of_seconds_is_none(ingress: Ingress, bus: HttpBus, after: str) -> None:
    ingress.answers.append(Response(status_code=503))
    ingress.answers[0].raw_headers.append((b"retry-after", after.encode()))
    with pytest.raises(Transient) as raised:
        await bus.publish(EVENT)
    assert raised.value.retry_after is None


@pytest.mark.parametrize("status", [400, 405, 410, 413, 415, 422])
async def test_what_the_broker_will_never_take_is_dead(ingress: Ingress, bus: HttpBus, status: int) -> None:
    ingress.answers.append(Response("the reason", status))
    with pytest.raises(Permanent, match=f"it answered {status} 'the reason'"):
        await bus.publish(EVENT)


@pytest.mark.parametrize("status", [301, 307, 401, 403])
async def test_a_wrong_setting_kills_no_event_and_is_loud(ingress: Ingress, bus: HttpBus, status: int) -> None:
    ingress.answers.append(Response(status_code=status, headers={"Location": "http://127.0.0.1:9/"}))
    with capture_logs() as logs, pytest.raises(Transient):
        await bus.publish(EVENT)
    assert [(line["log_level"], line["event"], line["status"]) for line in logs] == [
        ("error", "publish_unauthorized", status)
    ]
    assert SECRET not in str(logs)


async def test_a_broker_that_is_not_there_leaves_the_event_with_its_outbox() -> None:
    bus = HttpBus("http://127.0.0.1:9/", BROKER_AUTHENTICATION)
    with pytest.raises(Transient, match="ConnectError"):
        await bus.publish(EVENT)
    await bus.close()


async def test_a_broker_that_does_not_answer_is_not_waited_for(
    ingress: Ingress, bus: HttpBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_http, "PUBLISH_SECONDS", 0.2)
    ingress.gate.clear()
    waiting = [asyncio.create_task(bus.publish(EVENT)) for _ in range(2)]
    for publishing in waiting:
        with pytest.raises(Transient, match=r"TimeoutError|earlier messages of its key"):
            await publishing
    ingress.gate.set()


async def test_events_of_one_key_go_out_one_after_another_and_others_side_by_side(
    ingress: Ingress, bus: HttpBus
) -> None:
    keyed = [Message("t", key, {**BASE, "partitionkey": key}, b"") for key in "aab"]
    ingress.gate.clear()
    publishing = [asyncio.create_task(bus.publish(message)) for message in keyed]
    async with asyncio.timeout(5):
        await ingress.two.wait()
    ingress.gate.set()
    await asyncio.gather(*publishing)
    assert ingress.most_at_once == 2
    assert len(ingress.requests) == 3


@asynccontextmanager
async def door(bus: HttpBus) -> AsyncGenerator[AsyncClient]:
    async with AsyncClient(transport=ASGITransport(door_of(bus)), base_url="http://test", headers=BEARER) as client:
        yield client


@pytest.fixture
async def taking() -> AsyncIterator[HttpBus]:
    bus = HttpBus("http://127.0.0.1:9", BROKER_AUTHENTICATION, receive_seconds=0.3)
    yield bus
    await bus.close()


async def test_the_door_answers_when_the_event_is_handled_and_not_before(taking: HttpBus) -> None:
    begun, committed, seen = asyncio.Event(), asyncio.Event(), list[Message]()

    async def handle(message: Message) -> None:
        seen.append(message)
        begun.set()
        await committed.wait()

    async with taking.subscribe("readers", frozenset(), handle), door(taking) as client:
        posting = asyncio.create_task(client.post("/events", headers=HEADERS, content=EVENT.data))
        await begun.wait()
        await asyncio.wait({posting}, timeout=0.1)
        answered_early = posting.done()
        committed.set()
        answer = await posting
    assert not answered_early
    assert (answer.status_code, answer.content) == (204, b"")
    assert [(message.key, message.attributes, message.data) for message in seen] == [
        (EVENT.key, EVENT.attributes, EVENT.data)
    ]


async def test_an_event_whose_handler_fails_is_left_with_the_broker(taking: HttpBus) -> None:
    tries = list[Message]()

    async def handle(message: Message) -> None:
        tries.append(message)
        raise Transient("the database is away")

    async with taking.subscribe("readers", frozenset(), handle), door(taking) as client:
        answer = await client.post("/events", headers=HEADERS, content=EVENT.data)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert len(tries) > 1, "a short outage is ridden out here"


async def test_a_batch_is_done_when_all_of_it_is(taking: HttpBus) -> None:
    seen, refused = list[str](), {"2"}

    async def handle(message: Message) -> None:
        if (name := message.attributes["id"]) in refused:
            raise Transient("not now")
        seen.append(name)

    batch = json.dumps([{**BASE, "id": name, "partitionkey": name} for name in "123"])
    kind = {"Content-Type": BATCHED}
    async with taking.subscribe("readers", frozenset(), handle), door(taking) as client:
        assert (await client.post("/events", headers=kind, content=batch)).status_code == 503
        refused.clear()
        assert (await client.post("/events", headers=kind, content=batch)).status_code == 204
        assert (await client.post("/events", headers=kind, content=b"[]")).status_code == 204
    assert sorted(seen) == ["1", "1", "2", "3", "3"]


async def test_nobody_gets_in_without_the_secret(taking: HttpBus) -> None:
    seen = asyncio.Queue[Message]()
    async with taking.subscribe("readers", frozenset(), seen.put), door(taking) as client:
        for wrong in ("", "Bearer ", "Bearer x", f"bearer {SECRET}x", f"Bearer {SECRET}x", SECRET, "Bearer \xe9"):
            sent = {
                name.encode(): value.encode("latin-1") for name, value in {**HEADERS, "Authorization": wrong}.items()
            }
            answer = await client.post("/events", headers=sent, content=EVENT.data)
            assert answer.status_code == 401, wrong
            assert answer.headers["Content-Type"] == "application/problem+json"
        twice = [*HEADERS.items(), ("Authorization", BEARER["Authorization"])]
        assert (await client.post("/events", headers=httpx.Headers(twice + twice[-1:]))).status_code == 401
    assert seen.empty()


async def test_a_process_that_takes_no_events_leaves_them_with_the_broker_unread(taking: HttpBus) -> None:
    read = list[bytes]()

    async def body() -> AsyncIterator[bytes]:
        read.append(b"x")
        yield b"x"

    async with door(taking) as client:
        assert (await client.post("/events", headers=HEADERS, content=body())).status_code == 503
    assert read == []


async def test_a_request_beyond_the_limit_is_refused_before_its_body_is_read(
    taking: HttpBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_http, "MAX_REQUESTS", 1)
    begun, go_on, read = asyncio.Event(), asyncio.Event(), list[bytes]()

    async def handle(_: Message) -> None:
        begun.set()
        await go_on.wait()

    async def body() -> AsyncIterator[bytes]:
        read.append(b"x")
        yield b"x"

    async with taking.subscribe("readers", frozenset(), handle), door(taking) as client:
        first = asyncio.create_task(client.post("/events", headers=HEADERS))
        await begun.wait()
        refused = asyncio.create_task(client.post("/events", headers=HEADERS, content=body()))
        await asyncio.wait({refused}, timeout=5)
        go_on.set()
        assert (await first).status_code == 204
        assert (refused.result().status_code, refused.result().headers["Retry-After"], read) == (503, "1", [])
        assert (await client.post("/events", headers=HEADERS)).status_code == 204


async def test_a_body_larger_than_any_message_is_refused(taking: HttpBus) -> None:
    seen = asyncio.Queue[Message]()
    async with taking.subscribe("readers", frozenset(), seen.put), door(taking) as client:
        assert (await client.post("/events", headers=HEADERS, content=b"x" * 1_400_001)).status_code == 413
        assert (await client.post("/events", headers=HEADERS, content=b"x" * 1_000_000)).status_code == 204


async def test_a_process_is_one_subscriber(taking: HttpBus) -> None:
    seen = asyncio.Queue[Message]()
    async with taking.subscribe("readers", frozenset(), seen.put):
        with pytest.raises(ValueError, match="is the subscriber readers, and cannot be others too"):
            async with taking.subscribe("others", frozenset({"t"}), seen.put):
                pass
