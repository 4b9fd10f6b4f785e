"""The workers door: the loops of agent-service, all started here, and the runs this process is working on."""

import asyncio
from uuid import UUID

import structlog

from agent_service.domain.runs import ClaimedRun
from agent_service.queries import ends
from agent_service.queries import runs as queries
from agent_service.usecases.claim_runs import claim_runs
from agent_service.usecases.end_run import end_overdue, tell_ends
from agent_service.usecases.perform_run import Means, perform_run
from durable_work.audit.sealing import SEAL_SECONDS, Sealer
from durable_work.dead_letters import DeadLetters
from durable_work.inbox import Inbox
from durable_work.leases import RENEW_SECONDS, Slots, WorkerLease, run_slots
from shared_clients.loops import Tasks, every
from shared_models.requests import FailureReason

log = structlog.get_logger()

LOOK_SECONDS = 0.25
"""How long a cancel may go unnoticed by the worker of a running run."""


class Performing:
    """The runs in progress here, by id and epoch, each with the future that stops it."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._stops: dict[tuple[UUID, int], asyncio.Future[FailureReason]] = {}
        self._idle: frozenset[tuple[UUID, int]] = frozenset()

    async def perform(self, run: ClaimedRun) -> None:
        stop: asyncio.Future[FailureReason] = asyncio.get_running_loop().create_future()
        self._stops[run.execution_id, run.epoch] = stop
        try:
            await perform_run(self._means, run, stop)
        finally:
            del self._stops[run.execution_id, run.epoch]

    async def look(self, worker: UUID) -> None:
        """Stop those of this worker's runs that were cancelled or whose deadline has passed.

        One that it owns and does not work on, at two looks in a row, is given up with a try less: its claim was
        committed without an answer, or a bug has ended the work.
        """
        held = {(run.execution_id, run.epoch): run for run in await queries.held(self._means.database, worker)}
        for place, run in held.items():
            stop = self._stops.get(place)
            if stop is not None and not stop.done() and run.stop is not None:
                stop.set_result(run.stop)
        idle = frozenset(held.keys() - self._stops.keys())
        for execution_id, epoch in idle & self._idle:
            log.warning("run_given_up", execution_id=str(execution_id), epoch=epoch)
            await queries.hand_back(self._means.database, held[execution_id, epoch], unused=False)
        self._idle = idle


def start(
    tasks: Tasks,
    means: Means,
    inbox: Inbox,
    *,
    letters: DeadLetters,
    lease: WorkerLease,
    slots: Slots[ClaimedRun],
    performing: Performing,
) -> None:
    """Start every loop of the service."""
    database, outbox = means.database, means.outbox
    loops = {
        "renew lease": every(RENEW_SECONDS, lease.renew),
        "look for cancels": every(LOOK_SECONDS, lambda: performing.look(lease.worker)),
        "retry parked events": every(1.0, inbox.retry),
        "forget events": every(600.0, inbox.delete_expired_events),
        "count dead letters": every(15.0, letters.count),
        "forget cancellations": every(600.0, lambda: ends.forget_cancellations(database)),
        "sweep outbox": every(1.0, outbox.sweep),
        "seal audit entries": every(SEAL_SECONDS, Sealer(database).seal),
        "end overdue runs": every(1.0, lambda: end_overdue(database, outbox)),
        "tell ends": every(1.0, lambda: tell_ends(database, means.redis)),
        "run slots": lambda: run_slots(slots, lambda most: claim_runs(database, outbox, lease.worker, most)),
    }
    for name, loop in loops.items():
        tasks.start(name, loop)
