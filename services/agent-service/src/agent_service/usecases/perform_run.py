"""Perform a claimed run: load it, run its agent, and write how it ended, once.

However it goes, the run is left in a state that somebody acts on: ended here, handed back for the next worker, or, when
this worker has lost it, untouched for the one that owns it now.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Protocol

import structlog
from pydantic import ValidationError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from agent_service import metrics
from agent_service.domain.history import dump, load, usage_of, user_turn
from agent_service.domain.runs import MAX_TRIES, ClaimedRun, LoadedRun, Served, Step, answered, failed, view_of
from agent_service.domain.transcript import transcript
from agent_service.errors import Cancelled, OutOfTime, RunFailed
from agent_service.failpoints import Failpoint
from agent_service.ports import Models, Tool
from agent_service.queries import ends
from agent_service.queries import runs as queries
from agent_service.usecases.end_run import end_run
from agent_service.usecases.run_agent import Answered, run_agent
from durable_work.outbox import Outbox
from run_frames import FrameWriter, append_terminal
from shared_clients.errors import Permanent, Stale, Transient
from shared_clients.failpoints import reached
from shared_clients.postgres import Database
from shared_clients.redis import Redis
from shared_clients.tracing import continued
from shared_models.agents import Agent
from shared_models.frames import Cursor, terminal_frame
from shared_models.requests import FailureReason, ResponseFailed, ResponseReady, Usage

log = structlog.get_logger()

WINDOW_MOST = 1000
"""Messages of a session that are ever loaded; an agent's own limit is applied by `run_agent`."""


STOPS: dict[FailureReason, type[RunFailed]] = {stop.reason: stop for stop in (Cancelled, OutOfTime)}


@dataclass(frozen=True, slots=True)
class Equipped:
    """A revision of an agent with what it works with."""

    agent: Agent
    models: Models
    tools: Sequence[Tool]


class Agents(Protocol):
    def equip(self, name: str | None) -> Equipped:
        """Return the agent of that name, or the default one for None.

        Raises:
            UnknownAgent: there is none.
        """


@dataclass(frozen=True, slots=True)
class Means:
    """What every run of this process is performed with."""

    database: Database
    outbox: Outbox
    redis: Redis
    agents: Agents


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a run ended.

    Attributes:
        end: as it is told.
        messages: what it adds to its session.
        shown: the frame with which its log held all that was said, where that is known.
    """

    end: ResponseReady | ResponseFailed
    messages: Sequence[str] = ()
    shown: Cursor | None = None


class StepJournal:
    """The steps of one run: what earlier epochs finished, and where this one records."""

    def __init__(self, database: Database, run: ClaimedRun, steps: Sequence[Step]) -> None:
        self._database = database
        self._run = run
        self._finished = {step.key: step.result for step in steps}

    def finished(self, key: str) -> str | None:
        return self._finished.get(key)

    async def record(self, key: str, message: str, keep: Cursor) -> None:
        step = Step(key, message, keep)
        reached(Failpoint.AFTER_STEP_BEFORE_JOURNAL)
        await _until_stored(lambda: queries.save_step(self._database, self._run, step))
        reached(Failpoint.AFTER_JOURNAL_BEFORE_NEXT_STEP)
        self._finished[key] = message

    def usage(self) -> Usage:
        """Return what the finished steps have used; a call that is cut off does not say."""
        return usage_of(load(message) for message in self._finished.values())


async def perform_run(means: Means, run: ClaimedRun, stop: asyncio.Future[FailureReason]) -> None:
    """Do a run and write its end.

    Args:
        means: shared by all runs of the process.
        run: claimed by this worker.
        stop: gets the reason when the run has to end early.
    """
    began = monotonic()
    reached(Failpoint.AFTER_CLAIM_BEFORE_START)
    try:
        with continued({"traceparent": run.traceparent} if run.traceparent else {}, "invoke_agent"):
            ended = await _work(means, run, stop)
            try:
                await _write_end(means, run, ended)
            except (Permanent, ValidationError):  # such as an answer that is larger than an event
                log.exception("end_refused", execution_id=str(run.execution_id))
                ended = _Ended(failed(FailureReason.INTERNAL, "The answer could not be stored."))
                await _write_end(means, run, ended)
    except Stale as stale:
        log.warning("run_lost", execution_id=str(run.execution_id), epoch=run.epoch, why=str(stale))
        return
    except asyncio.CancelledError:
        await _hand_back(means, run)
        raise
    metrics.RUNS_ENDED.labels(ended.end.status.value).inc()
    metrics.RUN_SECONDS.observe(monotonic() - began)


async def _work(means: Means, run: ClaimedRun, stop: asyncio.Future[FailureReason]) -> _Ended:
    """Find out how the run ends; every way but losing it or being told to drain is an end."""
    served: Served | None = None
    try:
        equipped = means.agents.equip(run.agent)
        served = Served(equipped.agent.metadata.name, equipped.agent.revision)
        loaded = await _until_stored(lambda: queries.load_run(means.database, run, WINDOW_MOST))
        if (refused := _refused(run, loaded)) is not None:
            return _Ended(refused)
        asked = user_turn(run.content, run.execution_id)
        done, shown = await _think(means, run, loaded, equipped, stop=stop)
        messages = tuple(dump(message) for message in (asked, *done.messages))
        return _Ended(answered(done.text, served, done.usage, done.truncated), messages, shown)
    except RunFailed as failure:
        log.warning("run_failed", execution_id=str(run.execution_id), reason=failure.reason, detail=failure.detail)
        return _Ended(failed(failure.reason, failure.notice, served, failure.usage))
    except (Stale, Transient):
        raise
    except Exception:  # the worker's outermost edge: a bug in a run ends that run, with notice
        log.exception("run_crashed", execution_id=str(run.execution_id))
        return _Ended(failed(FailureReason.INTERNAL, "Something went wrong on our side.", served))


def _refused(run: ClaimedRun, loaded: LoadedRun) -> ResponseFailed | None:
    """Say why a run ends before its agent is asked, if it does."""
    if loaded.cancelled:
        return failed(FailureReason.CANCELLED_BY_CALLER, "The request was cancelled.")
    if loaded.expired:
        return failed(FailureReason.DEADLINE, "The request's deadline passed.")
    if loaded.session_deleted:
        return failed(FailureReason.SESSION_DELETED, "The conversation was deleted.")
    if run.tries > MAX_TRIES:
        return failed(FailureReason.INTERNAL, f"The request was given up after {MAX_TRIES} tries.")
    return None


async def _think(
    means: Means, run: ClaimedRun, loaded: LoadedRun, equipped: Equipped, *, stop: asyncio.Future[FailureReason]
) -> tuple[Answered, Cursor | None]:
    """Run the agent, with its frames, and return the last of them if all are in the log.

    It ends early when `stop` says so or its active time is up.

    Raises:
        RunFailed: also for an early end.
    """
    asked = user_turn(run.content, run.execution_id)
    limits = equipped.agent.spec.limits
    journal = StepJournal(means.database, run, loaded.steps)
    async with FrameWriter(
        means.redis,
        tenant=run.tenant,
        execution_id=run.execution_id,
        thread_id=run.session_id,
        epoch=run.epoch,
        still_mine=partial(queries.still_mine, means.database, run),
    ) as frames:
        kept = transcript([asked, *(load(step.result) for step in loaded.steps)])
        await frames.begin(loaded.steps[-1].keep if loaded.steps else None, kept)
        reached(Failpoint.AFTER_BEGIN_BEFORE_FIRST_STEP)
        work = asyncio.ensure_future(
            run_agent(
                [*(load(message) for message in loaded.window), asked],
                equipped.tools,
                limits,
                models=equipped.models,
                journal=journal,
                frames=frames,
            )
        )
        stop.add_done_callback(lambda _: work.cancel())
        try:
            async with asyncio.timeout(limits.seconds) as active:
                done = await work
        except TimeoutError:
            if not active.expired():
                raise
            raise _stopped(OutOfTime(f"{limits.seconds} s of active time"), journal) from None
        except asyncio.CancelledError:
            if stop.done():
                reached(Failpoint.AFTER_STOP_BEFORE_END)
                raise _stopped(STOPS[stop.result()]("while it was worked on"), journal) from None
            raise
    return done, frames.last if frames.whole else None


def _stopped(why: RunFailed, journal: StepJournal) -> RunFailed:
    why.usage = journal.usage()
    return why


async def _hand_back(means: Means, run: ClaimedRun) -> None:
    try:
        await queries.hand_back(means.database, run)
        log.info("run_handed_back", execution_id=str(run.execution_id), epoch=run.epoch)
    except Transient as error:
        log.warning("run_left_to_lease", execution_id=str(run.execution_id), error=str(error))


async def _write_end(means: Means, run: ClaimedRun, ended: _Ended) -> None:
    """Commit the end, then show it; a terminal frame that does not get through is left to the sweep."""

    async def commit() -> None:
        async with means.database.transaction() as tx:
            await end_run(tx, means.outbox, run, ended.end, messages=ended.messages)
            reached(Failpoint.AFTER_END_BEFORE_COMMIT)

    await _until_stored(commit)
    reached(Failpoint.AFTER_END_BEFORE_TERMINAL_FRAME)
    type_, fields = terminal_frame(view_of(run, ended.end))
    try:
        await append_terminal(
            means.redis,
            tenant=run.tenant,
            execution_id=run.execution_id,
            epoch=run.epoch,
            type_=type_,
            fields=fields,
            last=ended.shown,
        )
        reached(Failpoint.AFTER_TERMINAL_FRAME_BEFORE_TOLD)
        await ends.told(means.database, run.tenant, run.execution_id)
    except Transient as error:
        log.warning("terminal_frame_left_to_sweep", execution_id=str(run.execution_id), error=str(error))


async def _until_stored[T](store: Callable[[], Awaitable[T]]) -> T:
    """Do one database call again and again while the database is away: the work is done and must not be lost.

    It ends with success, or with Stale once the database is back and somebody else owns the run.
    """
    pause = wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05)
    async for attempt in AsyncRetrying(retry=retry_if_exception_type(Transient), wait=pause, reraise=True):
        with attempt:
            return await store()
    raise AssertionError("retrying ends with a result or an error")
