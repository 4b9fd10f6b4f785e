"""The log of one run: a Redis stream `frames:<tenant>:<execution id>` whose entry ids are cursors.

Redis refuses an id that is not above the last one, so the end of the log is also its fence: the frames of a later
epoch, and the terminal frame `<epoch+1>-0`, shut out a writer of an earlier epoch.
"""

from collections.abc import Sequence
from typing import Final, cast
from uuid import UUID

from redis.exceptions import ResponseError

from shared_clients.errors import Transient
from shared_clients.redis import REDIS_ERRORS, Command, Redis
from shared_models.frames import START, Cursor, Fields, Frame, OpenParts, encode, ending

PAGE: Final = 100
RETENTION_SECONDS: Final = 86_400
"""How long a log is kept after its terminal frame."""
APPEND_IF_LAST: Final = """
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if #newest == 0 or newest[1][1] ~= ARGV[1] then return 0 end
redis.call('XADD', KEYS[1], ARGV[2], 't', ARGV[3], 'd', ARGV[4])
return redis.call('EXPIRE', KEYS[1], ARGV[5])
"""

type StreamEntry = tuple[bytes, tuple[bytes, bytes, bytes, bytes]]
"""An entry as Redis returns it: the id, and the fields `t` (type) and `d` (data), each name before its value."""


def log_key(tenant: str, execution_id: UUID) -> str:
    return f"frames:{tenant}:{execution_id}"


def to_frame(entry: StreamEntry) -> Frame:
    epoch, _, sequence = entry[0].partition(b"-")
    return Frame(Cursor(int(epoch), int(sequence)), entry[1][1].decode(), entry[1][3])


def is_refusal(reply: object) -> bool:
    """Tell whether Redis refused an XADD because its id is not above the last one."""
    return isinstance(reply, ResponseError) and "equal or smaller" in str(reply)


async def append(
    redis: Redis, key: str, frames: Sequence[Frame], final_command: Command, *, create: bool
) -> list[object]:
    """Append frames and send a final command, in one round trip; return a reply or an error for each.

    Args:
        redis: the connections of this process.
        key: of the log.
        frames: in their order.
        final_command: about the log after the frames.
        create: whether the first frame creates a log that does not exist. Without it the reply to each frame is None.
    """
    commands: list[Command] = []
    for frame in frames:
        existing_only = () if create and frame is frames[0] else ("NOMKSTREAM",)
        commands.append(("XADD", key, *existing_only, str(frame.cursor), "t", frame.type, "d", frame.data))
    return await redis.batched.send(*commands, final_command)


async def read_page(redis: Redis, key: str, after: Cursor, limit: int = PAGE) -> list[Frame]:
    """Return the next frames after a cursor; fewer than `limit` means that there are no more."""
    (entries,) = await redis.batched.send(("XRANGE", key, f"({after}", "+", "COUNT", limit))
    if isinstance(entries, Exception):
        raise entries
    return [to_frame(entry) for entry in cast("list[StreamEntry]", entries)]


async def read_last(redis: Redis, key: str) -> Frame | None:
    """Return the last frame of the log; None where there is no log."""
    (entries,) = await redis.batched.send(("XREVRANGE", key, "+", "-", "COUNT", 1))
    if isinstance(entries, Exception):
        raise entries
    frames = [to_frame(entry) for entry in cast("list[StreamEntry]", entries)]
    return frames[0] if frames else None


async def read_log(redis: Redis, key: str) -> list[Frame]:
    """Return the whole log."""
    frames: list[Frame] = []
    while page := await read_page(redis, key, frames[-1].cursor if frames else START):
        frames += page
    return frames


async def append_terminal(
    redis: Redis, *, tenant: str, execution_id: UUID, epoch: int, type_: str, fields: Fields, last: Cursor | None = None
) -> None:
    """Append the one frame that ends a run, after the commit that ended it; calling it again changes nothing.

    If the log does not end with `last`, or `last` is None, the log is read first. Then all open parts are closed, and a
    resync with the answer makes up for frames that may be missing. (Redis may have been restored from an older copy.)

    Args:
        redis: the connections of this process.
        tenant: of the run.
        execution_id: of the run.
        epoch: the last one of the run.
        type_: as `terminal_frame` returned it.
        fields: as `terminal_frame` returned them.
        last: the last frame, when the log was complete (`FrameWriter.whole`); None where that is not known.

    Raises:
        Transient: Redis does not answer; the row still says that the frame is due.
    """
    key = log_key(tenant, execution_id)
    try:
        frame = encode(type_, execution_id, Cursor(epoch + 1, 0), fields)
        if last is None or not await _append_if_last(redis, key, last, frame):
            log = await read_log(redis, key)
            seen = log[-1].cursor if log else START
            outcome, still_open = (type_, fields), OpenParts(log)
            missing = ending(execution_id, seen, outcome, epoch=epoch, still_open=still_open)
            await _close(redis, key, missing if seen < frame.cursor else [])
    except REDIS_ERRORS as error:
        msg = f"the terminal frame of run {execution_id} could not be appended: {type(error).__name__}: {error}"
        raise Transient(msg[:300]) from error


async def _append_if_last(redis: Redis, key: str, last: Cursor, frame: Frame) -> bool:
    """Append a frame and let the log expire, if the log ends with `last`.

    One script does both, because the log may be lost between two commands.
    """
    (reply,) = await redis.batched.send(
        ("EVAL", APPEND_IF_LAST, 1, key, str(last), str(frame.cursor), frame.type, frame.data, RETENTION_SECONDS)
    )
    if isinstance(reply, Exception) and not is_refusal(reply):
        raise reply
    return reply == 1


async def _close(redis: Redis, key: str, frames: Sequence[Frame]) -> None:
    """Append the last frames and let the log expire; where there is no log, create it."""
    for reply in await append(redis, key, frames, ("EXPIRE", key, RETENTION_SECONDS), create=True):
        if isinstance(reply, Exception) and not is_refusal(reply):
            raise reply
