"""The workers door: every loop of agent-service starts here, and the active runs of this process are kept here."""

from uuid import UUID

import structlog

from agent_service.domain.runs import ClaimedRun
from agent_service.queries import ends
from agent_service.queries import runs as queries
from agent_service.usecases.claim_runs import claim_runs
from agent_service.usecases.end_run import append_due_terminal_frames, end_overdue_runs
from agent_service.usecases.perform_run import CancellationScope, RunDependencies, perform_run
from durable_work.audit.sealing import SEAL_SECONDS, Sealer
from durable_work.dead_letters import DeadLetters
from durable_work.inbox import Inbox
from durable_work.jobs import RENEW_SECONDS, Slots, WorkerLease, run_slots
from shared_clients.loops import Tasks, every

log = structlog.get_logger()

CANCELLATION_POLL_SECONDS = 0.25
"""The longest time until the worker of a running run sees its cancellation."""

type ClaimKey = tuple[UUID, int]
"""The execution id and the epoch of a claimed run."""


class ActiveRuns:
    """The runs that this process works on, each with the scope that cancels it."""

    def __init__(self, dependencies: RunDependencies) -> None:
        self._dependencies = dependencies
        self._active: dict[ClaimKey, CancellationScope] = {}
        self._unknown: frozenset[ClaimKey] = frozenset()

    async def perform(self, run: ClaimedRun) -> None:
        key = run.execution_id, run.epoch
        self._active[key] = CancellationScope()
        try:
            await perform_run(self._dependencies, run, self._active[key])
        finally:
            del self._active[key]

    async def stop_unwanted(self, worker: UUID) -> None:
        """Cancel those runs of this worker that were cancelled or whose deadline has passed.

        A claim whose commit answer was lost, or whose work a bug ended, leaves a run that is assigned to this worker
        and not active. After two such calls the run is handed back, and the claim counts as a try.
        """
        runs = await queries.list_owned_runs(self._dependencies.database, worker)
        owned = {(run.execution_id, run.epoch): run for run in runs}
        for key in owned.keys() & self._active.keys():
            if (reason := owned[key].stop_reason) is not None:
                self._active[key].cancel(reason)
        unknown = frozenset(owned.keys() - self._active.keys())
        for key in unknown & self._unknown:
            log.warning("run_handed_back", execution_id=str(owned[key].execution_id), epoch=owned[key].epoch)
            await queries.hand_back(self._dependencies.database, owned[key], counts_as_try=True)
        self._unknown = unknown


def start(
    tasks: Tasks,
    dependencies: RunDependencies,
    inbox: Inbox,
    *,
    letters: DeadLetters,
    lease: WorkerLease,
    slots: Slots[ClaimedRun],
    active_runs: ActiveRuns,
) -> None:
    """Start every loop of the service."""
    database, outbox, redis = dependencies.database, dependencies.outbox, dependencies.redis
    loops = {
        "renew lease": every(RENEW_SECONDS, lease.renew),
        "stop unwanted runs": every(CANCELLATION_POLL_SECONDS, lambda: active_runs.stop_unwanted(lease.worker)),
        "retry parked events": every(1.0, inbox.retry),
        "forget events": every(600.0, inbox.delete_expired_events),
        "count dead letters": every(15.0, letters.count),
        "delete expired cancellations": every(600.0, lambda: ends.delete_expired_cancellations(database)),
        "sweep outbox": every(1.0, outbox.sweep),
        "seal audit entries": every(SEAL_SECONDS, Sealer(database).seal),
        "end overdue runs": every(1.0, lambda: end_overdue_runs(database, outbox)),
        "append due terminal frames": every(1.0, lambda: append_due_terminal_frames(database, redis)),
        "delete unused leases": every(600.0, lease.delete_unused),
        "run slots": lambda: run_slots(
            slots,
            lambda most, after, full: claim_runs(database, outbox, lease.worker, most, after=after, full=full),
        ),
    }
    for name, loop in loops.items():
        tasks.start(name, loop)
