"""Streams: the frames of a run as server-sent events, resumable after every frame, on any replica.

`FrameReader.follow` yields complete frames; this module only adds the lines of the SSE format. During a silence the
stream sends comments, so that no proxy cuts it. A client that leaves ends its stream and nothing else: the run goes on.
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

HEARTBEAT_SECONDS: Final = 10.0
"""The silence after which a comment is sent. Proxies cut at 60 s, and the documented promise is 15 s."""
RECHECK_SECONDS: Final = 40.0
"""How often the stream checks again that its reader still has permission."""
RETRY_HINT: Final = b"retry: 1000\n\n"
"""The first bytes of every stream: milliseconds after which an `EventSource` connects again."""

type PermissionCheck = Callable[[], Awaitable[bool]]


async def relay(
    frames: FrameReader,
    tenant: str,
    execution_id: UUID,
    after: Cursor,
    *,
    still_permitted: PermissionCheck,
    heartbeat: float = HEARTBEAT_SECONDS,
    recheck: float = RECHECK_SECONDS,
) -> AsyncGenerator[bytes]:
    """Yield the frames after a cursor as SSE bytes, until the run ends or this replica goes away.

    Args:
        frames: the process's reader. When it is drained, the stream ends and the client goes on at another replica.
        tenant: the tenant of the run.
        execution_id: the run.
        after: the cursor of the last frame that the client has.
        still_permitted: tells whether the reader may still read; the stream ends when it may not.
        heartbeat: seconds of silence after which a comment is sent.
        recheck: seconds between two calls of `still_permitted`.
    """
    clock = asyncio.get_running_loop().time
    recheck_at = clock() + recheck
    yield RETRY_HINT
    async with aclosing(frames.follow(tenant, execution_id, after, heartbeat=heartbeat)) as following:
        async for frame in following:
            yield sse(frame)
            reached(Failpoint.AFTER_FRAME_BEFORE_NEXT_FRAME)
            if clock() > recheck_at:
                if not await still_permitted():
                    return
                recheck_at = clock() + recheck


def event_stream(content: AsyncGenerator[bytes], headers: dict[str, str]) -> StreamingResponse:
    """Return an SSE response that no proxy buffers or stores."""
    unbuffered = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(content, 200, {**unbuffered, **headers}, "text/event-stream")
