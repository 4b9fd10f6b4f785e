"""The workers door: the loops of the gateway, all started here."""

from fastapi import FastAPI

from api_gateway import queries
from api_gateway.admission import SHARE_SECONDS, Admission
from api_gateway.refusals import Refusals
from durable_work.audit.sealing import SEAL_SECONDS, Sealer
from run_frames import FrameReader
from service_process.web import draining
from shared_clients.loops import Tasks, every
from shared_clients.postgres import Database


def start(
    tasks: Tasks, app: FastAPI, database: Database, frames: FrameReader, *, admission: Admission, refusals: Refusals
) -> None:
    """Start every loop of the gateway."""
    tasks.start("end streams", lambda: _end_streams(app, frames))
    tasks.start("share limits", every(SHARE_SECONDS, admission.rates.share))
    tasks.start("forget expired sign-ins", every(600.0, lambda: queries.forget_expired(database)))
    tasks.start("write refusals", every(1.0, lambda: refusals.write(database)))
    tasks.start("seal audit entries", every(SEAL_SECONDS, Sealer(database).seal))


async def _end_streams(app: FastAPI, frames: FrameReader) -> None:
    """Have open streams end once this replica goes away, so that their clients go on elsewhere."""
    await draining(app).wait()
    frames.drain()
