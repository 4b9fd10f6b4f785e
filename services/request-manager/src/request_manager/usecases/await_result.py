"""Wait for a request's end: for the run's terminal frame or the durable row, whichever comes first, on any replica."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from request_manager import queries
from request_manager.domain import owner_of
from run_frames import FrameReader
from shared_clients.postgres import Database
from shared_models.frames import START, terminal_frame, terminal_view
from shared_models.requests import TERMINAL, Principal, RequestView

SETTLING: Final = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
"""Pauses in seconds between looks for the row after the terminal frame was seen: a caller who is told the end should
find the same when it asks again, and the event that settles the row is on its way."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Where ends show up."""

    database: Database
    frames: FrameReader


async def ended_runs(
    database: Database, tenant: str, execution_ids: Sequence[UUID]
) -> Mapping[UUID, tuple[str, Mapping[str, object]]]:
    """Return the terminal frames of those runs that have ended, from their requests' rows."""
    views = await queries.ended_views(database, tenant, execution_ids)
    return {view.request_id: terminal_frame(view) for view in views}


async def await_result(waiting: Waiting, principal: Principal, request_id: UUID, seconds: float) -> RequestView | None:
    """Return the request once it has ended, or as it is after `seconds`; None where it is not the caller's."""
    owned = (principal.tenant, owner_of(principal), request_id)
    view = await queries.load_view(waiting.database, *owned)
    if view is None or view.status in TERMINAL:
        return view
    told: RequestView | None = None
    try:
        async with asyncio.timeout(seconds):
            async for frame in waiting.frames.follow(principal.tenant, request_id, START):
                if frame is not None and frame.terminal:
                    told = terminal_view(frame)
    except TimeoutError:
        return await queries.load_view(waiting.database, *owned)
    for pause in SETTLING:
        await asyncio.sleep(pause)
        view = await queries.load_view(waiting.database, *owned)
        if view is None or view.status in TERMINAL:
            break
    return view if view is None or view.status in TERMINAL else told or view
