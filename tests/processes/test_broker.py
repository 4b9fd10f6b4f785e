"""A bus that is a broker over HTTP: it is killed or frozen, or the consumer behind it is, and nothing is lost."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from time import monotonic

import asyncpg
import pytest
from pydantic_core import to_json

from shared_models.ids import new_id
from tests.client import Client, Request
from tests.fleets import ProcessFleet
from tests.processes.watching import MEASURED, report, until

pytestmark = [pytest.mark.processes, pytest.mark.redis, pytest.mark.postgres]

CALLS = 20


@pytest.fixture
async def http_client(http_fleet: ProcessFleet) -> AsyncIterator[Client]:
    async with Client(http_fleet) as client:
        yield client


@pytest.mark.parametrize("victim", ["mock-eventing-1", "agent-service-1"])
async def test_what_was_accepted_is_answered_once_whoever_is_killed(
    http_fleet: ProcessFleet, http_client: Client, victim: str
) -> None:
    said = f"Say {new_id()}"
    accepted = await asyncio.gather(*(accept(http_client, said) for _ in range(CALLS)))
    http_fleet.signal(victim, signal.SIGKILL)
    killed = monotonic()
    await asyncio.gather(*(until_answered(http_client, request_id) for request_id in accepted))
    report(f"kill -9 of {victim} on http://, to the last of {CALLS} answers", monotonic() - killed)
    assert await runs(http_fleet, said) == sorted(accepted), "each was run once"
    MEASURED.append(f"{victim} killed on http://: 0 of {CALLS} requests lost or run twice")


async def test_a_frozen_broker_is_only_a_pause(http_fleet: ProcessFleet, http_client: Client) -> None:
    http_fleet.signal("mock-eventing-1", signal.SIGSTOP)
    try:
        accepted = await accept(http_client, "Say it when you can")
    finally:
        http_fleet.signal("mock-eventing-1", signal.SIGCONT)
    await until_answered(http_client, accepted)


async def accept(client: Client, said: str) -> str:
    headers: dict[str, str | None] = {"Idempotency-Key": f"broker-{new_id()}"}
    answer = await client.call(Request("POST", "/api/v1/requests", headers, to_json({"content": said})))
    assert answer.status == 202, answer
    return str(answer.json()["request_id"])


async def until_answered(client: Client, request_id: str) -> None:
    async def is_answered() -> bool:
        answer = await client.call(Request("GET", f"/api/v1/requests/{request_id}?wait=10"))
        return answer.status == 200 and answer.json()["status"] == "completed"

    await until(f"{request_id} is answered", is_answered, 0.1)


async def runs(fleet: ProcessFleet, said: str) -> Sequence[str]:
    postgres = await asyncpg.connect(fleet.stores.database_url.replace("+asyncpg", ""))
    try:
        rows = await postgres.fetch("SELECT execution_id FROM agent_service.runs WHERE content = $1", said)
    finally:
        await postgres.close()
    return sorted(str(row["execution_id"]) for row in rows)
