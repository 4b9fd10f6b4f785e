import asyncio
import signal
from time import monotonic

import psutil
import pytest

from tests.client import Client
from tests.fleets import ProcessFleet
from tests.processes.watching import Provider, Tables, asking, check_end, holder, report, until
from tests.simulators.openai_wire import Behaviour, ToolUse

pytestmark = [pytest.mark.processes, pytest.mark.kafka, pytest.mark.redis, pytest.mark.postgres]

SUM = Behaviour(calls=(ToolUse(name="calculator", arguments='{"expression": "6 * 7"}'),))
SLOW = Behaviour(words=100, token_ms=50)
QUICK = Behaviour(words=60, token_ms=2)
KILLED = 5.0
"""Seconds within which a run goes on whose worker was killed."""
HANDED_BACK = 2.0
"""The same for a worker that was asked to stop."""
DRAINED = 10.0
"""Seconds within which a process ends that was asked to stop."""


async def test_a_run_killed_in_mid_answer_goes_on_elsewhere_without_repeating_what_was_finished(
    process_fleet: ProcessFleet, provider: Provider, tables: Tables, client: Client
) -> None:
    await provider.behave(SUM, SLOW, QUICK)
    async with asking(client, "Work it out") as watcher:
        await watcher.text()
        victim = await holder(process_fleet, tables, watcher.run_id)
        worker = (await tables.run(watcher.run_id)).worker
        killed = monotonic()
        process_fleet.signal(victim, signal.SIGKILL)
        resumed = await watcher.epoch(2) - killed
        assert (await tables.run(watcher.run_id)).worker != worker, "the other one, or the dead one's successor"
        await watcher.end()

    report("kill -9 of agent-service in mid-answer", resumed, KILLED)
    answer = await check_end(client, tables, watcher)
    assert answer == " ".join(f"w{number}" for number in range(60))
    assert await provider.outcomes() == ["done", "disconnected", "done"], "the first call, finished, is not repeated"
    assert [len(call.messages) for call in await provider.calls()] == [1, 3, 3]
    result = next(frame for frame in watcher.seen.frames if frame.type == "TOOL_CALL_RESULT")
    assert watcher.seen.viewer.resets == [str(result.cursor)], "what the finished steps have shown is kept"
    [(_, first), _, (last, second)] = await tables.steps(watcher.run_id)
    assert (first, last, second) == (1, "model:2", 2)


async def test_a_run_killed_before_its_models_first_token_goes_on_elsewhere(
    process_fleet: ProcessFleet, provider: Provider, tables: Tables, client: Client
) -> None:
    await provider.behave(SUM, Behaviour(start_ms=20_000), QUICK)

    async def is_asked_again() -> bool:
        return await provider.outcomes() == ["done", "open"]

    async with asking(client, "Work it out") as watcher:
        await until("the second call has begun", is_asked_again)
        killed = monotonic()
        process_fleet.signal(await holder(process_fleet, tables, watcher.run_id), signal.SIGKILL)
        resumed = await watcher.epoch(2) - killed
        await watcher.end()

    report("kill -9 of agent-service before a token", resumed, KILLED)
    await check_end(client, tables, watcher)
    assert await provider.outcomes() == ["done", "disconnected", "done"]


async def test_a_run_killed_between_its_answer_and_its_end_does_not_ask_the_model_again(
    process_fleet: ProcessFleet, provider: Provider, tables: Tables, client: Client
) -> None:
    await provider.behave(SUM, QUICK)

    async def is_finished_but_for_its_end() -> bool:
        return len(await tables.steps(watcher.run_id)) == 3

    async with asking(client, "Work it out") as watcher:
        async with tables.locked("messages"):
            await until("the last step is in the journal", is_finished_but_for_its_end)
            await watcher.first("the end of the message", lambda frame: frame.type == "TEXT_MESSAGE_END")
            killed = monotonic()
            process_fleet.signal(await holder(process_fleet, tables, watcher.run_id), signal.SIGKILL)
        resumed = await watcher.epoch(2) - killed
        await watcher.end()

    report("kill -9 of agent-service before the end's commit", resumed, KILLED)
    await check_end(client, tables, watcher)
    assert await provider.outcomes() == ["done", "done"]
    shown = next(frame for frame in watcher.seen.frames if frame.type == "TEXT_MESSAGE_END")
    assert watcher.seen.viewer.resets == [str(shown.cursor)], "the whole answer was shown, and stays"


@pytest.mark.parametrize("wakes", ["in the middle of its successor's answer", "after its successor has finished"])
async def test_a_worker_that_wakes_after_its_lease_writes_nothing(
    wakes: str, process_fleet: ProcessFleet, provider: Provider, tables: Tables, client: Client
) -> None:
    early = wakes.startswith("in the middle")
    await provider.behave(SLOW, Behaviour(words=60, token_ms=80) if early else QUICK)
    async with asking(client, "Count") as watcher:
        await watcher.text()
        zombie = await holder(process_fleet, tables, watcher.run_id)
        log = process_fleet.logs / f"{zombie}.log"
        stopped = monotonic()
        process_fleet.signal(zombie, signal.SIGSTOP)
        try:
            resumed = await watcher.epoch(2) - stopped
            if not early:
                await watcher.end()
                await until("the end is told", lambda: tables.is_told(watcher.run_id))
            before = await tables.everything_of(watcher.run_id)
            frames = await tables.log(watcher.run_id)
        finally:
            process_fleet.signal(zombie, signal.SIGCONT)

        async def has_given_up() -> bool:
            lines = await asyncio.to_thread(log.read_text)
            return any("run_lost" in line and watcher.run_id in line for line in lines.splitlines())

        await until("the zombie has found out that it has lost the run", has_given_up, 0.1)
        if early:
            await watcher.end()

    report("takeover of a stopped agent-service", resumed, KILLED)
    await check_end(client, tables, watcher)
    whole = await tables.log(watcher.run_id)
    takeover = next(place for place, frame in enumerate(whole) if frame.cursor.epoch == 2)
    assert all(frame.cursor.epoch > 1 for frame in whole[takeover:]), "no frame of the zombie after the successor's"
    assert (await tables.run(watcher.run_id)).epoch == 2
    assert await tables.steps(watcher.run_id) == [("model:1", 2)]
    if not early:
        assert whole == frames
        assert await tables.everything_of(watcher.run_id) == before, "not a row is touched"


async def test_a_worker_that_is_asked_to_stop_hands_its_runs_back_at_once(
    process_fleet: ProcessFleet, provider: Provider, tables: Tables, client: Client
) -> None:
    await provider.behave(SUM, SLOW, QUICK)
    async with asking(client, "Work it out") as watcher:
        await watcher.text()
        victim = await holder(process_fleet, tables, watcher.run_id)
        process = psutil.Process(process_fleet.pid(victim))
        asked = monotonic()
        process_fleet.signal(victim, signal.SIGTERM)
        resumed = await watcher.epoch(2) - asked
        await watcher.end()

    async def has_ended() -> bool:
        return not process.is_running()

    report("SIGTERM of agent-service in mid-answer", resumed, HANDED_BACK)
    await until("the process has ended", has_ended)
    report("SIGTERM of agent-service to its end", monotonic() - asked, DRAINED)
    await check_end(client, tables, watcher)
    assert await provider.outcomes() == ["done", "disconnected", "done"]
    assert (await tables.run(watcher.run_id)).tries == 1, "handing back costs no try"
