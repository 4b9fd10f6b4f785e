"""Wait for a request's end: its terminal frame or its durable row, whichever comes first, on any replica."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from request_manager.queries import requests
from run_frames import FrameReader
from shared_clients.postgres import Database
from shared_models.frames import START, TerminalEvent, terminal_frame, terminal_view
from shared_models.requests import TERMINAL, Principal, RequestView

SETTLING_PAUSES: Final = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
"""Seconds to wait before each read of the row after the terminal frame. The event that settles the row may arrive after
the terminal frame; the wait lets the next call of the caller read the same end."""


async def ended_runs(database: Database, tenant: str, execution_ids: Sequence[UUID]) -> Mapping[UUID, TerminalEvent]:
    """Return the terminal events of those runs that have ended, made from their requests' rows."""
    views = await requests.list_ended_views(database, tenant, execution_ids)
    return {view.request_id: terminal_frame(view) for view in views}


async def await_result(
    database: Database, frames: FrameReader, caller: Principal, request_id: UUID, *, seconds: float
) -> RequestView | None:
    """Return the request once it has ended, or as it is after `seconds`; None where it is not the caller's."""
    view = await requests.load_view(database, caller, request_id)
    if view is None or view.status in TERMINAL:
        return view
    frame_view: RequestView | None = None
    try:
        async with asyncio.timeout(seconds):
            async for frame in frames.follow(caller.tenant, request_id, START):
                if frame is not None and frame.terminal:
                    frame_view = terminal_view(frame)
    except TimeoutError:
        return await requests.load_view(database, caller, request_id)
    for pause in SETTLING_PAUSES:
        await asyncio.sleep(pause)
        view = await requests.load_view(database, caller, request_id)
        if view is None or view.status in TERMINAL:
            return view
    return frame_view or view
