"""Streams: a run's frames as server-sent events, resumable at every frame, on any replica.

Frames come ready-made from `frames.follow`; here they only get their SSE lines. A stream that is silent gets a comment
before any proxy loses patience. A client that leaves ends its stream and nothing else: the run goes on.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final
from uuid import UUID

from starlette.responses import StreamingResponse

from api_gateway.failpoints import Failpoint
from run_frames import FrameReader
from shared_clients.failpoints import reached
from shared_models.frames import Cursor, sse

BEAT_SECONDS: Final = 10.0
"""Silence after which a comment is sent; proxies cut at 60 s, our promise is 15 s."""
CHECK_SECONDS: Final = 40.0
"""How often it is asked again whether the reader may still read."""
HELLO: Final = b"retry: 1000\n\n"

Allowed = Callable[[], Awaitable[bool]]


async def relay(
    frames: FrameReader,
    tenant: str,
    execution_id: UUID,
    after: Cursor,
    *,
    allowed: Allowed,
    beat: float = BEAT_SECONDS,
    check: float = CHECK_SECONDS,
) -> AsyncGenerator[bytes]:
    """Yield the frames after a cursor as SSE bytes, until the run's end or until this replica goes away.

    Args:
        frames: the process's reader; when it is drained, the stream ends and the client goes on elsewhere.
        tenant: the run's.
        execution_id: the run.
        after: the last frame the client has.
        allowed: whether the reader may still read.
        beat: seconds of silence after which a comment is sent.
        check: seconds between two questions to `allowed`.
    """
    clock = asyncio.get_running_loop().time
    check_at = clock() + check
    yield HELLO
    async with aclosing(frames.follow(tenant, execution_id, after, heartbeat=beat)) as following:
        async for frame in following:
            yield sse(frame)
            reached(Failpoint.AFTER_FRAME_BEFORE_NEXT_FRAME)
            if clock() > check_at:
                if not await allowed():
                    return
                check_at = clock() + check


def event_stream(content: AsyncGenerator[bytes], headers: dict[str, str]) -> StreamingResponse:
    """Return an SSE response that no proxy buffers or stores."""
    unbuffered = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(content, 200, {**unbuffered, **headers}, "text/event-stream")
