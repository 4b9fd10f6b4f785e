"""The background loops of the gateway beside the standard ones."""

import asyncio
from collections.abc import Mapping

from api_gateway import queries
from api_gateway.admission.rates import SYNC_SECONDS, RateLimiter
from api_gateway.refusals import RefusalLog
from run_frames import FrameReader
from shared_clients.loops import Loop, every
from shared_clients.postgres import Database


def loops(
    draining: asyncio.Event, database: Database, frames: FrameReader, *, rates: RateLimiter, refusals: RefusalLog
) -> Mapping[str, Loop]:
    """Return the gateway's own loops by name."""
    return {
        "end streams": lambda: _end_streams(draining, frames),
        "share limits": every(SYNC_SECONDS, rates.sync),
        "forget expired sign-ins": every(600.0, lambda: queries.delete_expired_sign_ins(database)),
        "write refusals": every(1.0, lambda: refusals.write(database)),
    }


async def _end_streams(draining: asyncio.Event, frames: FrameReader) -> None:
    """End open streams when this replica shuts down, so that their clients continue at another replica."""
    await draining.wait()
    frames.drain()
