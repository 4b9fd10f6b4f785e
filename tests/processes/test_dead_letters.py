import asyncio
import signal

import aiohttp
import pytest
from pydantic_core import to_json

from shared_clients.bus import open_bus
from shared_clients.bus.port import Message
from shared_models.catalog import REQUEST_CREATED
from shared_models.dead_letters import DeadLetter, DeadLetterPage, ReplayedBatch
from shared_models.ids import new_id
from tests.client import Answer, Client, Request
from tests.fleets import ProcessFleet
from tests.processes.watching import PATIENCE, Tables, until

pytestmark = [pytest.mark.processes, pytest.mark.kafka, pytest.mark.redis, pytest.mark.postgres]

LETTERS = "/api/v1/dead-letters"
JSON = {"Content-Type": "application/json"}


async def test_poison_on_kafka_blocks_nobody_and_is_there_to_be_dealt_with(
    process_fleet: ProcessFleet, client: Client
) -> None:
    name = str(new_id())
    poison = Message(REQUEST_CREATED.topic, "k", {"id": name, "type": REQUEST_CREATED.name}, b"\x00{", "test")
    async with open_bus(process_fleet.stores.bus_url) as bus:
        for _ in range(3):
            await bus.publish(poison)
    assert (await ask(client, "Say after the poison")).json()["status"] == "completed"

    async def is_listed() -> bool:
        return any(letter.event_id == name for letter in await letters(client))

    await until("the poison is a dead letter", is_listed, 0.1)
    [letter] = [letter for letter in await letters(client) if letter.event_id == name]
    assert (letter.tenant, letter.malformed) == ("", True)
    refused = await client.call(Request("POST", f"{LETTERS}/{letter.id}/replay"))
    assert (refused.status, refused.json()["type"]) == (409, "urn:flotilla:problem:not-replayable")
    body = to_json({"reason": "a test of ours"})
    assert (await client.call(Request("POST", f"{LETTERS}/{letter.id}/discard", JSON, body))).status == 200
    assert not await is_listed()


async def test_request_that_died_is_asked_again_once_although_everybody_is_killed_meanwhile(
    process_fleet: ProcessFleet, client: Client, tables: Tables
) -> None:
    content = f"Say it again {new_id()}"
    await tables.postgres.execute(f"ALTER TABLE runs ADD CONSTRAINT poison CHECK (content <> '{content}') NOT VALID")
    try:
        old = (await ask(client, content)).json()
    finally:
        await tables.postgres.execute("ALTER TABLE runs DROP CONSTRAINT poison")
    assert old["status"] == "failed"
    [letter] = [one for one in await letters(client) if one.correlation_id == old["request_id"]]
    tries = [asyncio.create_task(replayed(client, letter.id)) for _ in range(3)]
    for victim in ("request-manager-1", "agent-service-1", "agent-service-2"):
        process_fleet.signal(victim, signal.SIGKILL)
        await asyncio.sleep(0.05)  # so that the victims die at different moments of the replays
    [new] = set(await asyncio.gather(*tries))

    async def is_answered() -> bool:
        answer = await client.call(Request("GET", f"/api/v1/requests/{new}?wait=10"))
        return answer.status == 200 and answer.json()["status"] == "completed"

    await until(f"{new} is answered", is_answered, 0.1)
    assert await tables.postgres.fetchval("SELECT count(*) FROM runs WHERE content = $1", content) == 1
    assert not [one for one in await letters(client) if one.id == letter.id]


async def test_batch_deals_with_many_at_once(client: Client, tables: Tables) -> None:
    content = f"Say many {new_id()}"
    await tables.postgres.execute(f"ALTER TABLE runs ADD CONSTRAINT poison CHECK (content <> '{content}') NOT VALID")
    try:
        old = [one.json()["request_id"] for one in await asyncio.gather(*(ask(client, content) for _ in range(20)))]
    finally:
        await tables.postgres.execute("ALTER TABLE runs DROP CONSTRAINT poison")
    answer = await client.call(Request("POST", f"{LETTERS}/replay", JSON, to_json({"limit": 200})))
    batch = ReplayedBatch.model_validate_json(answer.body)
    assert len(batch.requests) >= len(old)

    async def are_answered() -> bool:
        query = "SELECT count(*) FROM runs WHERE content = $1 AND status = 'completed'"
        return bool(await tables.postgres.fetchval(query, content) == len(old))

    await until("all are answered", are_answered, 0.1)
    assert not {one.correlation_id for one in await letters(client)} & set(old)


async def ask(client: Client, content: str) -> Answer:
    headers = {**JSON, "Prefer": "wait=20"}
    return await client.call(Request("POST", "/api/v1/requests", headers, to_json({"content": content})))


async def letters(client: Client) -> list[DeadLetter]:
    answer = await client.call(Request("GET", f"{LETTERS}?limit=200"))
    assert answer.status == 200, answer
    return list(DeadLetterPage.model_validate_json(answer.body).letters)


async def replayed(client: Client, letter: str) -> str:
    """Replay until somebody says that it is done, and return the new request."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                answer = await client.call(Request("POST", f"{LETTERS}/{letter}/replay"))
                if answer.status == 200:
                    return str(answer.json()["request_id"])
                assert answer.status == 503, answer
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
