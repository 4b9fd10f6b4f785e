"""Starts the background loops of the gateway."""

from fastapi import FastAPI

from api_gateway import queries
from api_gateway.admission.rates import SYNC_SECONDS, RateLimiter
from api_gateway.refusals import RefusalLog
from durable_work.audit.sealing import SEAL_SECONDS, Sealer
from run_frames import FrameReader
from service_process.web import draining
from shared_clients.loops import Tasks, every
from shared_clients.postgres import Database


def start(
    tasks: Tasks, app: FastAPI, database: Database, frames: FrameReader, *, rates: RateLimiter, refusals: RefusalLog
) -> None:
    """Start every loop of the gateway."""
    tasks.start("end streams", lambda: _end_streams(app, frames))
    tasks.start("share limits", every(SYNC_SECONDS, rates.sync))
    tasks.start("forget expired sign-ins", every(600.0, lambda: queries.delete_expired_sign_ins(database)))
    tasks.start("write refusals", every(1.0, lambda: refusals.write(database)))
    tasks.start("seal audit entries", every(SEAL_SECONDS, Sealer(database).seal))


async def _end_streams(app: FastAPI, frames: FrameReader) -> None:
    """End open streams when this replica shuts down, so that their clients continue at another replica."""
    await draining(app).wait()
    frames.drain()
