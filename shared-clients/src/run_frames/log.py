"""The log of one run: a Redis stream `frames:<tenant>:<execution id>` whose entry ids are cursors.

Redis takes no id that is not above the last one, so the log's end is also its fence: the frames of a later epoch, and
the terminal frame `<epoch+1>-0`, shut out whoever still writes under an earlier one.
"""

from collections.abc import Sequence
from typing import Final, cast
from uuid import UUID

from redis.exceptions import ResponseError

from shared_clients.errors import Transient
from shared_clients.redis import REDIS_ERRORS, Command, Redis
from shared_models.frames import START, Cursor, Fields, Frame, OpenParts, encode, ending

PAGE: Final = 100
KEPT_SECONDS: Final = 86_400
"""How long a log outlives its terminal frame."""
END_AFTER: Final = """
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if #newest == 0 or newest[1][1] ~= ARGV[1] then return 0 end
redis.call('XADD', KEYS[1], ARGV[2], 't', ARGV[3], 'd', ARGV[4])
return redis.call('EXPIRE', KEYS[1], ARGV[5])
"""

type Entry = tuple[bytes, tuple[bytes, bytes, bytes, bytes]]
"""An entry as Redis returns it: id, and the fields `t` (type) and `d` (data), each name before its value."""


def log_key(tenant: str, execution_id: UUID) -> str:
    return f"frames:{tenant}:{execution_id}"


def to_frame(entry: Entry) -> Frame:
    epoch, _, sequence = entry[0].partition(b"-")
    return Frame(Cursor(int(epoch), int(sequence)), entry[1][1].decode(), entry[1][3])


def is_refusal(reply: object) -> bool:
    """Tell whether XADD was refused because its id is not above the last."""
    return isinstance(reply, ResponseError) and "equal or smaller" in str(reply)


async def append(redis: Redis, key: str, frames: Sequence[Frame], last: Command, *, makes: bool) -> list[object]:
    """Send an XADD for each frame and a last command in one round trip; return a reply or an error for each.

    `last` is a command about the log as it is then. Where there is no log, the first frame `makes` it; otherwise each
    frame's reply is None.
    """
    commands: list[Command] = []
    for frame in frames:
        only_there = () if makes and frame is frames[0] else ("NOMKSTREAM",)
        commands.append(("XADD", key, *only_there, str(frame.cursor), "t", frame.type, "d", frame.data))
    return await redis.together.send(*commands, last)


async def read_page(redis: Redis, key: str, after: Cursor, most: int = PAGE) -> list[Frame]:
    """Return the next frames after a cursor; fewer than `most` means that there are no more."""
    (entries,) = await redis.together.send(("XRANGE", key, f"({after}", "+", "COUNT", most))
    if isinstance(entries, Exception):
        raise entries
    return [to_frame(entry) for entry in cast("list[Entry]", entries)]


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

    `type_` and `fields` are those of `terminal_frame`; `last` is the frame with which the log held all that was said
    (`FrameWriter.whole`). Where it does not end with that one (Redis may have come back from an older copy), or nobody
    knows, as in a sweep, the log is read first: what is open is closed, and a resync with the answer makes up for what
    may be missing.

    Raises:
        Transient: Redis does not answer; the row still says that the frame is due.
    """
    key = log_key(tenant, execution_id)
    try:
        frame = encode(type_, execution_id, Cursor(epoch + 1, 0), fields)
        if last is None or not await _end_after(redis, key, last, frame):
            await _close(redis, key, await _made_up(redis, key, (execution_id, epoch), (type_, fields)))
    except REDIS_ERRORS as error:
        msg = f"the terminal frame of run {execution_id} could not be appended: {type(error).__name__}: {error}"
        raise Transient(msg[:300]) from error


async def _end_after(redis: Redis, key: str, last: Cursor, frame: Frame) -> bool:
    """Append a frame and let the log expire, if it ends with `last`: in one step, because it may be lost between."""
    (done,) = await redis.together.send(
        ("EVAL", END_AFTER, 1, key, str(last), str(frame.cursor), frame.type, frame.data, KEPT_SECONDS)
    )
    if isinstance(done, Exception) and not is_refusal(done):
        raise done
    return done == 1


async def _made_up(redis: Redis, key: str, run: tuple[UUID, int], outcome: tuple[str, Fields]) -> list[Frame]:
    """Return what ends the log as it is; nothing if it has ended."""
    execution_id, epoch = run
    there = await read_log(redis, key)
    seen = there[-1].cursor if there else START
    if seen >= Cursor(epoch + 1, 0):
        return []
    return ending(execution_id, seen, outcome, epoch=epoch, still_open=OpenParts(there))


async def _close(redis: Redis, key: str, frames: Sequence[Frame]) -> None:
    """Append the last frames, to a new log where there is none, and let the log expire."""
    for reply in await append(redis, key, frames, ("EXPIRE", key, KEPT_SECONDS), makes=True):
        if isinstance(reply, Exception) and not is_refusal(reply):
            raise reply
