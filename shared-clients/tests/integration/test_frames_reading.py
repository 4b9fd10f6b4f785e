"""The frames that followers of a run get, on both kinds of Redis."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from run_frames import FrameReader
from run_frames.follower import MAX_LIVE, FollowerState
from shared_clients.redis import Redis, open_redis
from shared_models.frames import START, Cursor, Frame
from shared_models.ids import new_id
from tests.simulators.streams import PATIENCE, Rows, Run, flushed, watching
from tests.simulators.viewer import Viewer, seen

WORDS = [f"word {number} " for number in range(12)]


@pytest.fixture
async def replica(redis: Redis, request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """Connections of another process to the same Redis; the one inside a process has no other."""
    if request.node.callspec.params["redis"] == "memory":
        yield redis
    else:
        async with open_redis(request.getfixturevalue("redis_url")) as other:
            yield other


async def test_a_follower_sees_all_of_a_run_while_it_goes_on(run: Run, reader: FrameReader) -> None:
    async with watching(reader, run) as watcher, run.writer() as writer:
        message = new_id()
        await writer.begin(None, [])
        await watcher.until(Cursor(1, 1))
        writer.append("TEXT_MESSAGE_START", messageId=message)
        for number, word in enumerate(WORDS, start=3):
            writer.text(message, word)
            await watcher.until(Cursor(1, number))
        writer.append("TEXT_MESSAGE_END", messageId=message)
        await flushed(writer)
        await run.finish("".join(WORDS))

        viewer = seen(await watcher.rest())

    assert viewer.text == "".join(WORDS)
    assert viewer.cursor == Cursor(2, 0)
    assert watcher.frames == await run.log()


async def test_resuming_at_every_cursor_gives_exactly_the_rest(run: Run, reader: FrameReader) -> None:
    await run.tell(WORDS)
    log = await run.log()

    for place in range(len(log)):
        after = START if place == 0 else log[place - 1].cursor
        assert await run.follow(reader, after) == log[place:]
    assert await run.follow(reader, log[-1].cursor) == []


async def test_a_client_cut_at_every_frame_of_a_live_run_misses_and_repeats_nothing(
    run: Run, reader: FrameReader, replica: Redis, rows: Rows
) -> None:
    async with FrameReader(replica, rows) as elsewhere, asyncio.timeout(PATIENCE):
        telling = asyncio.create_task(run.tell(WORDS))
        viewer = Viewer()
        turns = 0
        while viewer.outcome is None:
            turns += 1
            async with aclosing(
                (reader, elsewhere)[turns % 2].follow(run.tenant, run.execution_id, viewer.cursor)
            ) as stream:
                viewer.take(await anext(stream))
        await telling

    assert viewer.text == "".join(WORDS)
    assert turns == len(await run.log())


async def test_two_replicas_give_the_same_bytes(run: Run, reader: FrameReader, replica: Redis, rows: Rows) -> None:
    async with FrameReader(replica, rows) as other:
        here, there, _ = await asyncio.gather(run.follow(reader), run.follow(other), run.tell(WORDS))

    assert here == there == await run.log()


async def test_live_followers_of_one_process_share_the_bytes_that_were_encoded_once(
    run: Run, reader: FrameReader
) -> None:
    async with watching(reader, run) as one, watching(reader, run) as two, run.writer() as writer:
        await writer.begin(None, [])
        await one.until(Cursor(1, 1))
        await two.until(Cursor(1, 1))
        writer.append("STEP_STARTED", stepName="triage")
        first, second = (await one.until(Cursor(1, 2)))[-1], (await two.until(Cursor(1, 2)))[-1]

    assert first is second


async def test_a_late_follower_of_a_run_that_is_being_read_gets_all_of_it(run: Run, reader: FrameReader) -> None:
    async with watching(reader, run) as early, run.writer() as writer:
        message = new_id()
        await writer.begin(None, [])
        writer.append("TEXT_MESSAGE_START", messageId=message)
        for word in WORDS:
            writer.text(message, word)
            await flushed(writer)
        await early.until(writer.last)
        async with watching(reader, run) as late, watching(reader, run, Cursor(1, 5)) as resumed:
            await late.until(Cursor(1, 1))
            await resumed.until(Cursor(1, 6))
            writer.append("TEXT_MESSAGE_END", messageId=message)
            await flushed(writer)
            await run.finish("".join(WORDS))
            log = await run.log()

            assert await early.rest() == log
            assert await late.rest() == log
            assert await resumed.rest() == log[5:]


async def test_a_restart_of_the_run_reaches_its_followers(run: Run, reader: FrameReader) -> None:
    following = asyncio.create_task(run.follow(reader))
    async with run.writer(epoch=1) as old:
        half = new_id()
        await old.begin(None, [])
        old.append("TEXT_MESSAGE_START", messageId=half)
        old.text(half, "Half an ans")
    await run.tell(["A whole ", "answer."], epoch=2)

    viewer = seen(await following)

    assert viewer.text == "A whole answer."
    assert viewer.resets == [None]


async def test_two_hundred_followers_of_ten_runs_all_get_everything(redis: Redis, reader: FrameReader) -> None:
    runs = [Run(redis) for _ in range(10)]
    following = [asyncio.create_task(run.follow(reader)) for run in runs for _ in range(20)]

    async with asyncio.timeout(4 * PATIENCE):
        await asyncio.gather(*(run.tell(WORDS) for run in runs))
        results = await asyncio.gather(*following)

    logs = {run.execution_id: await run.log() for run in runs}
    for number, frames in enumerate(results):
        assert frames == logs[runs[number // 20].execution_id]
    assert not reader._followed


async def test_a_slow_follower_gets_everything_and_little_waits_for_it(run: Run, reader: FrameReader) -> None:
    async with watching(reader, run) as slow, run.writer() as writer:
        message = new_id()
        await writer.begin(None, [])
        writer.append("TEXT_MESSAGE_START", messageId=message)
        await slow.until(Cursor(1, 2))
        quick = asyncio.create_task(run.follow(reader))
        for number in range(3 * MAX_LIVE):
            writer.append("TEXT_MESSAGE_CONTENT", messageId=message, delta=f"{number} ")
            if number % 50 == 0:
                await flushed(writer)
        writer.append("TEXT_MESSAGE_END", messageId=message)
        await flushed(writer)
        await run.finish("…")
        log = await run.log()
        assert await quick == log
        (follower,) = reader._followed[run.key].followers
        assert len(follower._live) + len(follower._page) <= MAX_LIVE

        assert await slow.rest() == log


async def test_silence_is_broken_by_heartbeats(run: Run, reader: FrameReader) -> None:
    async with run.writer() as writer, asyncio.timeout(PATIENCE):
        await writer.begin(None, [])
        async with aclosing(reader.follow(run.tenant, run.execution_id, START, heartbeat=0.05)) as stream:
            while await anext(stream) is None:
                pass
            assert [await anext(stream) for _ in range(3)] == [None, None, None]


async def test_the_durable_row_ends_a_stream_whose_terminal_frame_does_not_come(
    redis: Redis, reader: FrameReader, rows: Rows
) -> None:
    async def ends(run: Run, answer: str | None) -> Viewer:
        async with watching(reader, run) as watcher, run.writer() as writer:
            message = new_id()
            await writer.begin(None, [])
            writer.append("TEXT_MESSAGE_START", messageId=message)
            writer.text(message, "All ")
            await watcher.until(Cursor(1, 3))
            rows.ended[run.execution_id] = run.outcome(answer)
            return seen(await watcher.rest(), strict=False)

    rows.down = 1
    answered, failed = Run(redis), Run(redis)
    told_answer, told_failure = await asyncio.gather(ends(answered, "All of it."), ends(failed, None))

    assert (told_answer.text, told_failure.text) == ("All of it.", "All ")
    assert told_answer.cursor == told_failure.cursor == Cursor(2, 0)
    assert len(rows.asked) >= 2
    assert await answered.follow(reader, told_answer.cursor) == []


async def test_a_durable_row_does_not_cut_off_frames_that_are_in_the_log(
    run: Run, reader: FrameReader, rows: Rows
) -> None:
    async with watching(reader, run) as watcher, run.writer() as writer:
        await writer.begin(None, [])
        await watcher.until(Cursor(1, 1))
        reader._tasks._tasks["frames_read"].cancel()
        message = new_id()
        writer.append("TEXT_MESSAGE_START", messageId=message)
        writer.text(message, "All of it.")
        writer.append("TEXT_MESSAGE_END", messageId=message)
        await flushed(writer)
        await run.finish("All of it.")
        rows.ended[run.execution_id] = run.outcome("All of it.")

        assert await watcher.rest() == await run.log()


async def test_runs_without_a_log_end_by_their_rows_with_one_query_for_all(
    redis: Redis, reader: FrameReader, rows: Rows
) -> None:
    runs = [Run(redis) for _ in range(5)]
    for run in runs:
        rows.ended[run.execution_id] = run.outcome("Yes.")

    results = await asyncio.gather(*(run.follow(reader) for run in (*runs, *runs)))

    assert [seen(frames).text for frames in results] == ["Yes."] * 10
    assert all(frames[-1].type == "RUN_FINISHED" for frames in results)
    assert len(rows.asked) < len(runs), "several were asked for at once"
    assert {one for asked in rows.asked for one in asked} == {(run.tenant, run.execution_id) for run in runs}
    assert all(len(set(asked)) == len(asked) for asked in rows.asked)


async def test_a_log_that_was_lost_and_begun_anew_is_followed_without_a_gap(
    run: Run, reader: FrameReader, redis: Redis
) -> None:
    async with watching(reader, run) as level, watching(reader, run) as behind, run.writer() as writer:
        message = new_id()
        await writer.begin(None, [])
        await behind.until(Cursor(1, 1))
        writer.append("TEXT_MESSAGE_START", messageId=message)
        writer.text(message, "All that ")
        await level.until(Cursor(1, 3))
        (lagging,) = (follower for follower in reader._followed[run.key].followers if follower.cursor == Cursor(1, 1))
        for _ in range(MAX_LIVE):
            lagging.add_live(Frame(Cursor(1, 2), "CUSTOM", b"{}"))
        assert lagging.state is FollowerState.BEHIND

        await redis.commands.delete(run.key)
        resuming = asyncio.create_task(behind.until(Cursor(1, 3)))
        writer.text(message, "was said.")
        await resuming
        await flushed(writer)
        await run.finish("All that was said.")

        told, untold = seen(await level.rest(), strict=False), seen(await behind.rest(), strict=False)

    assert told.text == untold.text == "All that was said."
    assert (told.resyncs, untold.resyncs) == (0, 1)


async def test_a_closed_dropped_or_cancelled_stream_leaves_no_follower(run: Run, reader: FrameReader) -> None:
    async with run.writer() as writer:
        await writer.begin(None, [])
        async with watching(reader, run) as watcher:
            await watcher.until(Cursor(1, 1))
        waiting = reader.follow(run.tenant, run.execution_id, Cursor(1, 1), heartbeat=0.01)
        dropped = reader.follow(run.tenant, run.execution_id, START)
        await anext(dropped)
        await anext(waiting)
        assert len(reader._followed[run.key].followers) == 2

        cancelled = asyncio.ensure_future(anext(waiting))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        del dropped
        gc.collect()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert not reader._followed


async def test_streams_stop_when_their_reader_is_closed(run: Run, redis: Redis, rows: Rows) -> None:
    async with FrameReader(redis, rows) as reader, run.writer() as writer:
        await writer.begin(None, [])
        stream = reader.follow(run.tenant, run.execution_id, START)
        await anext(stream)
        following = asyncio.ensure_future(anext(stream, "stopped"))
        await asyncio.sleep(0)

    async with asyncio.timeout(PATIENCE):
        assert await following == "stopped"
