"""Frames while a real Redis is killed, emptied, paused, full or away: live frames may suffer, runs and ends do not."""

import asyncio
import dataclasses
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from local_backends import Backend, running_redis
from run_frames import FrameReader, FrameWriter
from shared_clients.redis import OutageLog, Redis, open_redis
from shared_models.frames import START, Cursor
from shared_models.ids import new_id
from tests.simulators.streams import PATIENCE, Rows, Run, Watcher, flushed, watching
from tests.simulators.viewer import seen

pytestmark = pytest.mark.redis


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Backend]:
    async with running_redis(tmp_path) as server:
        yield server


@pytest.fixture
async def redis(server: Backend) -> AsyncIterator[Redis]:
    async with open_redis(server.url) as redis:
        yield redis


async def begin_message(writer: FrameWriter, watcher: Watcher, text: str) -> UUID:
    """Begin a run and its first message, and wait until its text reaches a follower; return the message's id."""
    message = new_id()
    await writer.begin(None, [])
    writer.append("TEXT_MESSAGE_START", messageId=message)
    writer.text(message, text)
    await watcher.until(Cursor(1, 3))
    return message


class Noticed(OutageLog):
    """Tells a test when an outage is noticed."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.event = asyncio.Event()

    def failed(self, error: Exception) -> None:
        super().failed(error)
        self.event.set()


async def test_a_redis_killed_in_mid_stream_that_comes_back_empty_costs_no_text_and_no_end(
    run: Run, reader: FrameReader, server: Backend, tmp_path: Path
) -> None:
    async with watching(reader, run) as watcher, run.writer() as writer:
        message = await begin_message(writer, watcher, "Before ")
        await server.kill()
        shutil.rmtree(tmp_path / "appendonlydir")
        writer.text(message, "and while ")
        await server.restart()
        writer.text(message, "and after.")
        writer.append("TEXT_MESSAGE_END", messageId=message)
        await flushed(writer)
        assert writer.whole
        await run.finish("Before and while and after.", whole=writer.whole)

        watched = seen(await watcher.rest(), strict=False)
    came_later = seen(await run.follow(reader), strict=False)

    assert watched.text == came_later.text == "Before and while and after."
    assert watched.outcome == came_later.outcome
    assert came_later.resyncs == 1
    assert run.asked == 1


async def test_a_redis_that_comes_back_with_its_data_costs_nothing(
    run: Run, reader: FrameReader, server: Backend
) -> None:
    async with watching(reader, run) as watcher, run.writer() as writer:
        message = await begin_message(writer, watcher, "Before ")
        await server.kill()
        for word in ("and ", "while "):
            writer.text(message, word)
            await asyncio.sleep(0.05)
        await server.restart()
        writer.text(message, "and after.")
        writer.append("TEXT_MESSAGE_END", messageId=message)
        await flushed(writer)
        await run.finish("Before and while and after.", whole=writer.whole)

        viewer = seen(await watcher.rest())

    assert viewer.text == "Before and while and after."
    assert viewer.resyncs == 0


async def test_a_paused_redis_holds_up_neither_the_run_nor_the_end_of_its_stream(
    run: Run, reader: FrameReader, rows: Rows, server: Backend
) -> None:
    async with watching(reader, run) as watcher, run.writer() as writer:
        message = await begin_message(writer, watcher, "All ")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            slowest = 0.0
            for number in range(50):
                begun = time.perf_counter()
                writer.text(message, f"{number} ")
                writer.append("STEP_STARTED", stepName=f"{number}")
                slowest = max(slowest, time.perf_counter() - begun)
                await asyncio.sleep(0.01)
            rows.ended[run.execution_id] = run.outcome("All of it.")
            frames = await watcher.rest()
            closing = time.perf_counter()
            await writer.close()
            closed_in = time.perf_counter() - closing
        finally:
            os.kill(server.pid, signal.SIGCONT)

    assert slowest < 0.1
    assert closed_in < 3
    assert not writer.whole
    assert seen(frames, strict=False).text == "All of it."
    assert frames[-1].type == "RUN_FINISHED"


async def test_a_follower_gets_every_frame_once_across_a_pause(run: Run, reader: FrameReader, server: Backend) -> None:
    async with watching(reader, run) as watcher, run.writer() as writer:
        message = new_id()
        await writer.begin(None, [])
        writer.append("TEXT_MESSAGE_START", messageId=message)
        await watcher.until(Cursor(1, 2))
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for word in ("one ", "two ", "three"):
                writer.text(message, word)
                await asyncio.sleep(0.4)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        writer.append("TEXT_MESSAGE_END", messageId=message)
        await flushed(writer)
        await run.finish("one two three", whole=writer.whole)

        viewer = seen(await watcher.rest())

    assert viewer.text == "one two three"
    assert not writer.fenced


async def test_a_full_redis_costs_frames_and_a_resync_makes_up_for_them(
    run: Run, reader: FrameReader, redis: Redis
) -> None:
    noticed = Noticed("redis writes")
    full = dataclasses.replace(redis, writes=noticed)
    async with watching(reader, run) as watcher, run.writer(redis=full) as writer:
        message = await begin_message(writer, watcher, "Begun. ")
        await redis.commands.config_set("maxmemory", "1")
        for _ in range(20):
            writer.append("TOOL_CALL_RESULT", toolCallId="c", messageId=new_id(), content="x" * 60_000)
            writer.text(message, "More. ")
            await asyncio.wait_for(noticed.event.wait(), PATIENCE)
        await redis.commands.config_set("maxmemory", "0")
        writer.text(message, "Done.")
        writer.append("TEXT_MESSAGE_END", messageId=message)
        await flushed(writer)
        await run.finish("Begun. " + "More. " * 20 + "Done.", whole=writer.whole)

        viewer = seen(await watcher.rest(), strict=False)

    assert viewer.text == "Begun. " + "More. " * 20 + "Done."
    assert viewer.resyncs == 1


async def test_a_run_and_its_followers_do_without_a_redis_that_is_not_there(
    reader: FrameReader, server: Backend, redis: Redis, rows: Rows
) -> None:
    await server.kill()
    runs = [Run(redis) for _ in range(20)]
    for run in runs:
        rows.ended[run.execution_id] = run.outcome("Yes.")

    begun = time.perf_counter()
    with capture_logs() as logs:
        async with asyncio.timeout(PATIENCE), runs[0].writer(epoch=2) as writer:
            await writer.begin(Cursor(1, 4), [])
            writer.append("STEP_STARTED", stepName="triage")
        results = await asyncio.gather(*(run.follow(reader) for run in runs))

    assert [seen(frames).text for frames in results] == ["Yes."] * 20
    assert time.perf_counter() - begun < 10
    outages = [entry["system"] for entry in logs if entry["event"] == "outage_began"]
    assert sorted(outages) == ["redis reads", "redis writes"]


async def logged(logs: Sequence[Mapping[str, object]], event: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while event not in [entry["event"] for entry in logs]:  # noqa: ASYNC110 - the log is a list
            await asyncio.sleep(0.01)


async def test_an_outage_is_logged_once_and_so_is_its_end(run: Run, server: Backend) -> None:
    with capture_logs() as logs:
        async with run.writer() as writer:
            await writer.begin(None, [])
            await flushed(writer)
            await server.kill()
            writer.append("STEP_STARTED", stepName="triage")
            await logged(logs, "outage_began")
            await server.restart()
            await logged(logs, "outage_ended")

    assert [entry["event"] for entry in logs] == ["outage_began", "outage_ended"]
    assert server.url.split("@")[0] not in str(logs)


async def test_a_blocked_read_outlives_the_time_that_commands_have(redis: Redis) -> None:
    stream = await redis.blocking.xread({"nothing": "0-0"}, block=700)

    assert not stream
    with suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await redis.blocking.xread({"nothing": "0-0"}, block=5000)
    assert await redis.blocking.ping()


async def test_a_zombie_that_wakes_after_its_successor_writes_nothing(
    run: Run, reader: FrameReader, server: Backend, redis: Redis
) -> None:
    async with open_redis(server.url) as stale, run.writer(epoch=1, redis=stale) as zombie:
        message = new_id()
        await zombie.begin(None, [])
        zombie.append("TEXT_MESSAGE_START", messageId=message)
        zombie.text(message, "Half ")
        await flushed(zombie)
        zombie.text(message, "an answer")
        await run.tell(["A whole answer."], epoch=2)
        await flushed(zombie)
        zombie.append("TEXT_MESSAGE_END", messageId=message)
        await flushed(zombie)

        viewer = seen(await run.follow(reader, START))

    assert zombie.fenced
    assert viewer.text == "A whole answer."
    assert viewer.cursor == Cursor(3, 0)
