"""The workers door: the loops of agent-service beside the standard ones, and the active runs of this process."""

from collections.abc import Mapping
from uuid import UUID

import structlog

from agent_service.domain.runs import ClaimedRun
from agent_service.queries import ends
from agent_service.queries import runs as queries
from agent_service.usecases.end_run import append_due_terminal_frames, end_overdue_runs
from agent_service.usecases.perform_run import CancellationScope, RunDependencies, perform_run
from shared_clients.loops import Loop, every

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


def loops(dependencies: RunDependencies, active_runs: ActiveRuns, worker: UUID) -> Mapping[str, Loop]:
    """Return the service's own loops by name."""
    database, outbox, redis = dependencies.database, dependencies.outbox, dependencies.redis
    return {
        "stop unwanted runs": every(CANCELLATION_POLL_SECONDS, lambda: active_runs.stop_unwanted(worker)),
        "delete expired cancellations": every(600.0, lambda: ends.delete_expired_cancellations(database)),
        "end overdue runs": every(1.0, lambda: end_overdue_runs(database, outbox)),
        "append due terminal frames": every(1.0, lambda: append_due_terminal_frames(database, redis)),
    }
