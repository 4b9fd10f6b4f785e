"""The frames that a run writes into its log, on both kinds of Redis."""

import asyncio
import dataclasses
from typing import cast
from uuid import UUID

import pytest
from pydantic_core import from_json
from redis.exceptions import TimeoutError as RedisTimeoutError

from run_frames import append_terminal
from shared_clients.errors import Transient
from shared_clients.redis import Command, CommandBatcher, Redis, open_redis
from shared_models.frames import Cursor, Frame
from shared_models.ids import new_id
from tests.simulators.streams import Run, flushed
from tests.simulators.viewer import seen

SNAPSHOT = [{"id": "m1", "role": "user", "content": "Hi"}]


class Lossy(CommandBatcher):
    """A batcher that loses the next replies, after Redis has carried out the commands."""

    def __init__(self, batcher: CommandBatcher, losses: int) -> None:
        self._batcher = batcher
        self.losses = losses

    async def send(self, *commands: Command) -> list[object]:
        replies = await self._batcher.send(*commands)
        if self.losses:
            self.losses -= 1
            raise RedisTimeoutError("the reply got lost")
        return replies


def lossy(redis: Redis, losses: int) -> Redis:
    return dataclasses.replace(redis, batched=Lossy(redis.batched, losses))


def types(frames: list[Frame]) -> list[str]:
    return [frame.type for frame in frames]


def value(frame: Frame) -> dict[str, object]:
    return cast("dict[str, object]", from_json(frame.data)["value"])


async def test_a_complete_run_is_valid_for_agui_clients_and_holds_its_answer(run: Run) -> None:
    message = new_id()
    async with run.writer() as writer:
        await writer.begin(None, [])
        writer.append("TOOL_CALL_START", toolCallId="c1", toolCallName="look_up", parentMessageId=None)
        writer.append("TOOL_CALL_ARGS", toolCallId="c1", delta="{}")
        writer.append("TOOL_CALL_END", toolCallId="c1")
        writer.append("TOOL_CALL_RESULT", toolCallId="c1", messageId=new_id(), content="found")
        writer.append("TEXT_MESSAGE_START", messageId=message, role="assistant")
        for word in ("It ", "", "is ", "there."):
            writer.text(message, word)
        end = writer.append("TEXT_MESSAGE_END", messageId=message)
    assert writer.whole
    assert writer.last == end
    await run.finish("It is there.", whole=writer.whole)

    frames = await run.log()

    viewer = seen(frames)
    assert viewer.text == "It is there."
    assert viewer.outcome is not None
    assert frames[-1].cursor == Cursor(2, 0)
    assert [frame.cursor.sequence for frame in frames[:-1]] == list(range(1, 9))


async def test_deltas_that_come_during_a_round_trip_travel_as_one_frame(run: Run) -> None:
    words = [f"word {number} " for number in range(200)]
    async with run.writer() as writer:
        await writer.begin(None, [])
        message = new_id()
        writer.append("TEXT_MESSAGE_START", messageId=message)
        for word in words:
            writer.text(message, word)
            await asyncio.sleep(0)
        await flushed(writer)

    frames = await run.log()

    assert seen(frames).text == "".join(words)
    assert len(frames) < len(words)


async def test_a_stale_writer_writes_nothing_after_its_successors_first_frame(run: Run) -> None:
    async with run.writer(epoch=1) as old, run.writer(epoch=2) as new:
        message = new_id()
        await old.begin(None, [])
        old.append("TEXT_MESSAGE_START", messageId=message)
        old.text(message, "half an ans")
        await flushed(old)
        await new.begin(None, SNAPSHOT)
        await flushed(new)
        before = await run.log()

        old.text(message, "wer")
        old.append("TEXT_MESSAGE_END", messageId=message)
        await flushed(old)

        assert old.fenced
        assert not old.whole
        assert not new.fenced
        assert await run.log() == before
        assert run.asked == 0


async def test_a_new_epoch_closes_open_parts_and_voids_the_frames_after_the_last_step(run: Run) -> None:
    async with run.writer(epoch=1) as old:
        first, half = new_id(), new_id()
        await old.begin(None, [])
        old.append("TEXT_MESSAGE_START", messageId=first)
        old.text(first, "Let me see. ")
        keep = old.append("TEXT_MESSAGE_END", messageId=first)
        old.append("TOOL_CALL_START", toolCallId="c1", toolCallName="look_up")
        old.append("TEXT_MESSAGE_START", messageId=half)
        old.text(half, "It i")
    async with run.writer(epoch=2) as new:
        again = new_id()
        kept = [*SNAPSHOT, {"id": str(first), "role": "assistant", "content": "Let me see. "}]
        await new.begin(keep, kept)
        new.append("TEXT_MESSAGE_START", messageId=again)
        new.text(again, "There it is.")
        new.append("TEXT_MESSAGE_END", messageId=again)
    await run.finish("There it is.", epoch=2, whole=new.whole)

    frames = await run.log()

    viewer = seen(frames)
    assert viewer.text == "Let me see. There it is."
    assert viewer.resets == [str(keep)]
    restart = [frame for frame in frames if frame.cursor.epoch == 2]
    assert types(restart[:4]) == ["TEXT_MESSAGE_END", "TOOL_CALL_END", "CUSTOM", "MESSAGES_SNAPSHOT"]
    assert from_json(restart[3].data)["messages"] == kept
    assert restart[0].cursor == Cursor(2, 1)


async def test_an_epoch_whose_predecessor_wrote_nothing_starts_the_run(run: Run) -> None:
    async with run.writer(epoch=2) as writer:
        await writer.begin(None, [])
        await flushed(writer)

    assert types(await run.log()) == ["RUN_STARTED", "CUSTOM", "MESSAGES_SNAPSHOT"]
    assert seen(await run.log()).resets == [None]
    assert run.asked == 1


async def test_a_fallback_in_mid_answer_voids_it_within_the_epoch(run: Run) -> None:
    async with run.writer() as writer:
        first, second = new_id(), new_id()
        await writer.begin(None, [])
        keep = writer.last
        writer.append("TEXT_MESSAGE_START", messageId=first)
        writer.text(first, "Wrong mod")
        writer.void(keep, SNAPSHOT)
        writer.append("TEXT_MESSAGE_START", messageId=second)
        writer.text(second, "Right.")
        writer.append("TEXT_MESSAGE_END", messageId=second)
    await run.finish("Right.", whole=writer.whole)

    viewer = seen(await run.log())
    assert viewer.text == "Right."
    assert viewer.resets == ["1-1"]


async def test_a_retried_append_whose_first_try_arrived_is_taken_for_ours(run: Run, redis: Redis) -> None:
    async with run.writer(redis=lossy(redis, losses=2)) as writer:
        message = new_id()
        await writer.begin(None, [])
        writer.append("TEXT_MESSAGE_START", messageId=message)
        writer.text(message, "Once.")
        await flushed(writer)
        writer.text(message, " Only.")
        await flushed(writer)
        assert not writer.fenced

    viewer = seen(await run.log())
    assert viewer.text == "Once. Only."
    assert viewer.resyncs == 0


async def test_a_retried_append_that_meets_a_successor_is_fenced(run: Run, redis: Redis) -> None:
    async with run.writer(epoch=1, redis=lossy(redis, losses=1)) as old:
        await old.begin(None, [])
        async with run.writer(epoch=2) as new:
            await new.begin(None, [])
            await flushed(new)
            old.append("STEP_STARTED", stepName="late")
            await flushed(old)

            assert old.fenced
            assert not new.fenced


async def test_a_log_that_has_gone_is_begun_anew_with_the_text_so_far(run: Run, redis: Redis) -> None:
    async with run.writer() as writer:
        message = new_id()
        await writer.begin(None, [])
        writer.append("TEXT_MESSAGE_START", messageId=message)
        writer.text(message, "All that ")
        await flushed(writer)
        await redis.commands.delete(run.key)
        writer.text(message, "was said.")
        writer.append("TEXT_MESSAGE_END", messageId=message)
        await flushed(writer)

    frames = await run.log()

    assert [(str(frame.cursor), frame.type) for frame in frames[:2]] == [("0-1", "RUN_STARTED"), ("1-3", "CUSTOM")]
    assert value(frames[1]) == {"messageId": str(message), "content": "All that "}
    assert types(frames[2:]) == ["TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"]
    assert seen(frames, strict=False).text == "All that was said."
    assert run.asked == 1


async def test_a_writer_that_lost_its_claim_does_not_begin_a_log_anew(run: Run, redis: Redis) -> None:
    async with run.writer() as writer:
        await writer.begin(None, [])
        await flushed(writer)
        await redis.commands.delete(run.key)
        run.owned = False
        writer.append("STEP_STARTED", stepName="late")
        await flushed(writer)

        assert writer.fenced
        assert await run.log() == []


async def test_a_log_that_came_back_shorter_gets_a_resync(run: Run, redis: Redis) -> None:
    async with run.writer() as writer:
        message = new_id()
        await writer.begin(None, [])
        writer.append("TEXT_MESSAGE_START", messageId=message)
        for piece in ("Some ", "of this "):
            writer.text(message, piece)
            await flushed(writer)
        await redis.commands.xdel(run.key, "1-4")
        writer.text(message, "was lost.")
        await flushed(writer)

    viewer = seen(await run.log())
    assert viewer.text == "Some of this was lost."
    assert viewer.resyncs == 1


async def test_the_terminal_frame_is_there_once_and_makes_the_log_expire(run: Run, redis: Redis) -> None:
    await run.tell(["Done."])
    log = await run.log()

    await run.finish("Done.")
    await run.finish("Done.", whole=False)

    assert await run.log() == log
    assert 86_000 < await redis.commands.ttl(run.key) <= 86_400


async def test_nothing_is_written_after_the_terminal_frame(run: Run) -> None:
    async with run.writer() as late:
        await late.begin(None, [])
        await flushed(late)
        await run.finish("Done.")
        log = await run.log()
        late.append("STEP_STARTED", stepName="late")
        await flushed(late)

        assert late.fenced
        assert await run.log() == log


async def test_a_sweep_makes_up_for_frames_that_a_crash_left_out(run: Run) -> None:
    async with run.writer() as crashed:
        message = new_id()
        await crashed.begin(None, [])
        crashed.append("TEXT_MESSAGE_START", messageId=message)
        crashed.text(message, "It broke ")
        await flushed(crashed)

    await run.finish("It broke off here.", whole=False)

    viewer = seen(await run.log())
    assert viewer.text == "It broke off here."
    assert viewer.outcome is not None


async def test_a_log_that_lost_its_end_before_the_terminal_frame_is_made_whole(run: Run) -> None:
    """Redis may come back from an older copy, between the writer's last frame and the end's commit."""
    message = new_id()
    async with run.writer() as writer:
        await writer.begin(None, [])
        writer.append("TEXT_MESSAGE_START", messageId=message, role="assistant")
        for piece in ("One, ", "two, ", "three."):
            writer.text(message, piece)
            await flushed(writer)
    assert writer.whole
    *_, lost = await run.log()
    assert lost.cursor == writer.last
    await run.redis.commands.xdel(run.key, str(lost.cursor))
    await append_terminal(
        run.redis,
        tenant=run.tenant,
        execution_id=run.execution_id,
        epoch=1,
        event=run.outcome("One, two, three."),
        last=writer.last,
    )

    viewer = seen(await run.log(), strict=False)
    assert viewer.text == "One, two, three."
    assert viewer.outcome is not None


@pytest.mark.parametrize("answer", ["All of it.", None])
@pytest.mark.parametrize("whole", [True, False])
async def test_a_run_whose_log_has_gone_still_gets_its_end(run: Run, answer: str | None, *, whole: bool) -> None:
    await run.finish(answer, epoch=3, whole=whole)

    viewer = seen(await run.log())
    assert viewer.text == (answer or "")
    assert viewer.cursor == Cursor(4, 0)


async def test_a_terminal_frame_that_cannot_be_appended_is_transient() -> None:
    async with open_redis("redis://127.0.0.1:9") as nowhere:
        with pytest.raises(Transient, match="terminal frame of run"):
            await Run(nowhere).finish("Done.", whole=False)


async def test_tenants_have_logs_of_their_own(redis: Redis) -> None:
    run = UUID(int=1)
    await Run(redis, execution_id=run, tenant=f"a{new_id()}").tell(["for a"])

    assert await Run(redis, execution_id=run, tenant=f"b{new_id()}").log() == []
