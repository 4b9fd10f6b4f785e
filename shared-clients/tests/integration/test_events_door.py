"""The route for events over a real inbox: an acknowledged event is handled, or dead with a reason, in Postgres."""

from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from httpx import ASGITransport, AsyncClient, Response
from prometheus_client import REGISTRY
from sqlalchemy import RowMapping

from durable_work.inbox import Inbox, Reaction
from shared_clients.bus.http import HttpBus
from shared_clients.postgres import Database, Tx, sql
from shared_models.catalog import RESPONSE_FAILED, RESPONSE_READY, RUN_CHANGED
from shared_models.envelope import Envelope
from shared_models.requests import RunChanged
from tests.cloudevents_cases import BASE, HTTP_CASES
from tests.simulators.doors import BROKER_AUTHENTICATION, door_of
from tests.simulators.eventing import SECRET

CONSUMER = "request-manager"
DATA = RunChanged.model_validate({"status": "running", "epoch": 7}).model_dump_json().encode()
READ: Mapping[str, str] = {
    **BASE,
    "type": RUN_CHANGED.name,
    "source": "/flotilla/agent-service",
    "datacontenttype": "application/json",
}


class Door:
    """A service that reads events and does nothing about them, as its broker sees it."""

    def __init__(self, database: Database, client: AsyncClient) -> None:
        self._database = database
        self._client = client

    async def post(self, headers: Sequence[tuple[str, bytes]], body: bytes) -> Response:
        given = [(name.encode(), value) for name, value in headers]
        return await self._client.post("/events", headers=given, content=body)

    async def binary(self, attributes: Mapping[str, str], body: bytes = DATA) -> Response:
        return await self.post([(f"ce-{name}", value.encode()) for name, value in attributes.items()], body)

    async def rows(self) -> Sequence[RowMapping]:
        """Return what the inbox holds, and empty it."""
        async with self._database.transaction() as tx:
            rows = await tx.rows(sql("SELECT state, error, data, attributes, topic, type FROM inbox"))
            await tx.run(sql("DELETE FROM inbox"))
        return rows


async def react(tx: Tx, event: Envelope, data: object) -> None:
    del tx, event, data


@pytest.fixture
async def door(database: Database) -> AsyncIterator[Door]:
    inbox = Inbox(
        database, CONSUMER, [Reaction(event, react) for event in (RUN_CHANGED, RESPONSE_READY, RESPONSE_FAILED)]
    )
    bus = HttpBus("http://127.0.0.1:9", BROKER_AUTHENTICATION)
    transport = ASGITransport(door_of(bus))
    headers = {"Authorization": f"Bearer {SECRET}"}
    async with (
        bus.subscribe(CONSUMER, frozenset(), inbox.consume),
        AsyncClient(transport=transport, base_url="http://door", headers=headers) as client,
    ):
        yield Door(database, client)
    await bus.close()


def counted(outcome: str) -> float:
    labels = {"consumer": CONSUMER, "outcome": outcome}
    return REGISTRY.get_sample_value("flotilla_inbox_events_total", labels) or 0


async def test_every_case_is_acknowledged_and_a_request_that_is_no_event_is_kept_dead(door: Door) -> None:
    for case in HTTP_CASES:
        assert case.http is not None
        unknown = counted("unknown")
        answer = await door.post(*case.http)
        assert answer.status_code == 204, case.name
        rows = await door.rows()
        if case.events is not None:
            assert rows == [], case.name
            assert counted("unknown") == unknown + len(case.events), case.name
        elif not case.lenient:
            assert {row["state"] for row in rows} == {"dead"}, case.name
            assert all(row["error"].startswith("not a valid event: ") for row in rows), case.name


async def test_an_event_that_comes_twice_is_done_once(door: Door) -> None:
    done, duplicate = counted("done"), counted("duplicate")
    for _ in range(2):
        assert (await door.binary(READ)).status_code == 204
    assert [row["state"] for row in await door.rows()] == ["done"]
    assert (counted("done"), counted("duplicate")) == (done + 1, duplicate + 1)


@pytest.mark.parametrize("source", ["/flotilla/request-manager", "/elsewhere", "agent-service-2"])
async def test_a_sender_that_is_no_producer_of_the_type_is_not_believed(door: Door, source: str) -> None:
    assert (await door.binary({**READ, "source": source})).status_code == 204
    [row] = await door.rows()
    assert (row["state"], row["error"]) == ("dead", f"the source {source} may not write {RUN_CHANGED.name}")
    assert (row["data"], row["topic"]) == (DATA, RUN_CHANGED.topic)


async def test_data_that_is_not_as_agreed_is_dead_with_its_bytes(door: Door) -> None:
    assert (await door.binary(READ, b'{"status": "running"}')).status_code == 204
    [row] = await door.rows()
    assert (row["state"], row["data"]) == ("dead", b'{"status": "running"}')


async def test_a_newer_version_of_a_known_type_waits_for_the_release_that_reads_it(door: Door) -> None:
    assert (await door.binary({**READ, "type": "flotilla.run.changed.v2"})).status_code == 204
    [row] = await door.rows()
    assert row["state"] == "parked"


async def test_a_secret_never_gets_into_a_dead_letter(door: Door) -> None:
    assert (await door.post([("x-nothing", b"1")], b"")).status_code == 204
    [row] = await door.rows()
    assert row["attributes"]["header:x-nothing"] == "1"
    assert SECRET not in str(dict(row))
