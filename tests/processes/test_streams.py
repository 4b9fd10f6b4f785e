import signal
from time import monotonic

import pytest

from tests.client import Client, Request
from tests.fleets import ProcessFleet
from tests.processes.watching import Provider, Tables, asking, check_end, following, report
from tests.simulators.openai_wire import Behaviour

pytestmark = [pytest.mark.processes, pytest.mark.kafka, pytest.mark.redis, pytest.mark.postgres]


async def test_a_stream_goes_on_at_the_other_gateway_when_its_own_is_killed(
    process_fleet: ProcessFleet, provider: Provider, tables: Tables, client: Client
) -> None:
    await provider.behave(Behaviour(words=80, token_ms=40))
    mine, other = process_fleet.urls
    async with asking(client, "Count", url=mine) as watcher:
        await watcher.text()
        killed = monotonic()
        process_fleet.signal("api-gateway-1", signal.SIGKILL)
        await watcher.end()
        assert watcher.cut, "a killed gateway is no end of a stream"
    had = len(watcher.seen.frames)
    async with following(watcher, client, Request("GET", f"/chat/{watcher.run_id}"), other):
        resumed = watcher.times[had] - killed
        await watcher.end()

    report("kill -9 of a gateway in mid-stream, to the first frame by the other", resumed, 5.0)
    await check_end(client, tables, watcher, other)
    assert watcher.seen.viewer.resets == []
    assert await provider.outcomes() == ["done"]
    assert (await tables.run(watcher.run_id)).epoch == 1


async def test_a_log_that_has_gone_is_opened_anew_and_the_answer_stays_whole(
    process_fleet: ProcessFleet, provider: Provider, tables: Tables, client: Client
) -> None:
    await provider.behave(Behaviour(words=60, token_ms=30))
    async with asking(client, "Count") as watcher:
        await watcher.text()
        await tables.redis.delete(tables.log_key(watcher.run_id))
        await watcher.end()
    answer = await client.call(Request("GET", f"/api/v1/requests/{watcher.run_id}/result?wait=20"))

    assert watcher.seen.answer == answer.json()["response"]["content"] == " ".join(f"w{n}" for n in range(60))
    log = await tables.log(watcher.run_id)
    assert [log[0].type, log[-1].type] == ["RUN_STARTED", "RUN_FINISHED"]
    assert await provider.outcomes() == ["done"]
