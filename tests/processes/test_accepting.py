import asyncio
import signal
from time import monotonic

import aiohttp
import pytest
from pydantic_core import to_json

from shared_models.ids import new_id
from tests.client import Answer, Client, Request
from tests.fleets import ProcessFleet
from tests.processes.watching import MEASURED, PATIENCE, Tables, report, until

pytestmark = [pytest.mark.processes, pytest.mark.kafka, pytest.mark.redis, pytest.mark.postgres]

ROUNDS = 2
CALLS = 20


async def test_nothing_is_lost_when_request_manager_is_killed_right_after_a_202(
    process_fleet: ProcessFleet, tables: Tables, client: Client
) -> None:
    keys = [f"killed-{new_id()}" for _ in range(ROUNDS * CALLS)]
    accepted: dict[str, str] = {}
    unknown = 0
    for number in range(ROUNDS):
        calls = [asyncio.create_task(post(client, key)) for key in keys[number * CALLS : (number + 1) * CALLS]]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        process_fleet.signal("request-manager-1", signal.SIGKILL)
        killed = monotonic()
        for key, answer in await asyncio.gather(*calls):
            if answer is not None and answer.status == 202:
                accepted[key] = answer.json()["request_id"]
            else:
                assert answer is None or answer.status == 503, "either nothing is known, or it was not done"
                unknown += 1
        again = await asyncio.gather(*(until_accepted(client, key) for key in keys[: (number + 1) * CALLS]))
        report("kill -9 of request-manager, to accepting again with its start", monotonic() - killed)
        assert all(accepted.setdefault(key, id_) == id_ for key, id_ in again), "a key stands for one request"
    await asyncio.gather(*(until_answered(client, request_id) for request_id in accepted.values()))

    assert len(set(accepted.values())) == len(keys)
    query = "SELECT count(*) FROM runs WHERE content = 'Say after the kill'"
    assert await tables.postgres.fetchval(query) == len(keys), "each was run once"
    zero = f"0 of {len(keys)} requests lost or run twice (below {3 / len(keys):.1%} at 95 %)"
    MEASURED.append(f"request-manager killed {ROUNDS} times on Kafka: {zero}; {unknown} were settled by their key")


async def post(client: Client, key: str) -> tuple[str, Answer | None]:
    request = Request("POST", "/api/v1/requests", {"Idempotency-Key": key}, to_json({"content": "Say after the kill"}))
    try:
        return key, await client.call(request)
    except (aiohttp.ClientError, TimeoutError):
        return key, None


async def until_accepted(client: Client, key: str) -> tuple[str, str]:
    async with asyncio.timeout(PATIENCE):
        while True:
            _, answer = await post(client, key)
            if answer is not None and answer.status == 202:
                return key, answer.json()["request_id"]
            assert answer is None or answer.status == 503, answer
            await asyncio.sleep(0.1)


async def until_answered(client: Client, request_id: str) -> None:
    async def is_answered() -> bool:
        answer = await client.call(Request("GET", f"/api/v1/requests/{request_id}?wait=10"))
        return answer.status == 200 and answer.json()["status"] == "completed"

    await until(f"{request_id} is answered", is_answered, 0.1)
