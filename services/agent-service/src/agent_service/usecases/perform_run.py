"""Perform a claimed run: load it, run its agent, and write its end once.

The run is always left in a state from which some process goes on: it has ended; it is handed back for the next worker;
or another worker owns it by now, and it stays untouched.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Protocol

import structlog
from pydantic import ValidationError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from agent_service import metrics
from agent_service.domain.history import dump, load, usage_of, user_turn
from agent_service.domain.runs import (
    MAX_TRIES,
    AgentRevision,
    ClaimedRun,
    DueTerminalFrame,
    LoadedRun,
    Step,
    answered,
    failed,
    trace_of,
)
from agent_service.domain.transcript import transcript
from agent_service.errors import Cancelled, OutOfTime, RunFailed, SessionDeleted
from agent_service.failpoints import Failpoint
from agent_service.ports import Models, Tool
from agent_service.queries import ends
from agent_service.queries import runs as queries
from agent_service.usecases.end_run import append_due_terminal_frame, end_run
from agent_service.usecases.run_agent import run_agent
from durable_work.outbox import Outbox
from run_frames import FrameWriter
from shared_clients.errors import Permanent, Stale, Unconfirmed
from shared_clients.failpoints import reached
from shared_clients.postgres import Database
from shared_clients.redis import Redis
from shared_clients.tracing import consumer_span
from shared_models.agents import Agent
from shared_models.frames import Cursor
from shared_models.requests import FailureReason, ResponseFailed, ResponseReady, Usage

log = structlog.get_logger()

MAX_WINDOW = 1000
"""Messages of a session that are loaded at most; `run_agent` applies the agent's own limit."""


@dataclass(frozen=True, slots=True)
class AgentRuntime:
    """One revision of an agent with its models and tools."""

    agent: Agent
    models: Models
    tools: Sequence[Tool]


class Agents(Protocol):
    def runtime_of(self, name: str | None) -> AgentRuntime:
        """Return the agent of that name, or the default agent for None.

        Raises:
            UnknownAgent: no file defines it.
        """


@dataclass(frozen=True, slots=True)
class RunDependencies:
    """The dependencies that all runs of a process share."""

    database: Database
    outbox: Outbox
    redis: Redis
    agents: Agents


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The end of a run, before it is stored.

    Attributes:
        end: the answer or the failure.
        messages: the messages that the run adds to its session, as JSON.
        last_frame: the last frame of the run, if its log holds all its frames.
    """

    end: ResponseReady | ResponseFailed
    messages: Sequence[str] = ()
    last_frame: Cursor | None = None


class CancellationScope:
    """Bounds the work on one run by its active time, and ends it early when `cancel` is called.

    It is one `asyncio.timeout`, whose deadline `cancel` moves to now. A task that is cancelled from outside, as by a
    drain, still raises CancelledError.
    """

    def __init__(self) -> None:
        self._reason: FailureReason | None = None
        self._timeout: asyncio.Timeout | None = None

    def cancel(self, reason: FailureReason) -> None:
        """End the work, or keep it from beginning; only the first call has an effect."""
        if self._reason is None:
            self._reason = reason
            if self._timeout is not None and not self._timeout.expired():
                self._timeout.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def active_time(self, seconds: float) -> AsyncGenerator[None]:
        """Run the block for at most `seconds`.

        Raises:
            Cancelled: `cancel` was called because of a cancellation.
            OutOfTime: `cancel` was called because of the deadline, or the time is up.
        """
        timeout = self._timeout = asyncio.timeout(seconds if self._reason is None else 0)
        try:
            async with timeout:
                yield
        except TimeoutError:  # asyncio.timeout's own, or one from the block
            if not timeout.expired():
                raise
            if self._reason is None:
                raise OutOfTime(f"{seconds} s of active time") from None
            reached(Failpoint.AFTER_STOP_BEFORE_END)
            stop = Cancelled if self._reason is FailureReason.CANCELLED_BY_CALLER else OutOfTime
            raise stop("while it was running") from None
        finally:
            self._timeout = None


class StepJournal:
    """The journal of one run: the finished steps of earlier epochs, and those that this epoch records."""

    def __init__(self, database: Database, run: ClaimedRun, steps: Sequence[Step]) -> None:
        self._database = database
        self._run = run
        self._finished = {step.key: step.result for step in steps}

    def finished(self, key: str) -> str | None:
        return self._finished.get(key)

    async def record(self, key: str, message: str, keep: Cursor) -> None:
        reached(Failpoint.AFTER_STEP_BEFORE_JOURNAL)
        step = Step(key, message, keep)
        await _retry_transient(lambda: queries.save_step(self._database, self._run, step))
        reached(Failpoint.AFTER_JOURNAL_BEFORE_NEXT_STEP)
        self._finished[key] = message

    def usage(self) -> Usage:
        """Return the usage of the finished steps; the usage of a call that was cut off is not known."""
        return usage_of(load(message) for message in self._finished.values())


async def perform_run(dependencies: RunDependencies, run: ClaimedRun, cancellation: CancellationScope) -> None:
    """Perform a run and write its end.

    Args:
        dependencies: shared by all runs of the process.
        run: claimed by this worker.
        cancellation: ends the run early.
    """
    began = monotonic()
    reached(Failpoint.AFTER_CLAIM_BEFORE_START)
    try:
        with consumer_span(trace_of(run), "invoke_agent"):
            outcome = await _outcome_of(dependencies, run, cancellation)
            try:
                await _write_end(dependencies, run, outcome)
            except (Permanent, ValidationError):  # such as an answer that is larger than an event
                log.exception("end_refused", execution_id=str(run.execution_id))
                outcome = RunOutcome(failed(FailureReason.INTERNAL, "The answer could not be stored."))
                await _write_end(dependencies, run, outcome)
    except Stale as stale:
        log.warning("run_lost", execution_id=str(run.execution_id), epoch=run.epoch, why=str(stale))
        return
    except asyncio.CancelledError:
        await _hand_back(dependencies, run)
        raise
    metrics.RUNS_ENDED.labels(outcome.end.status.value).inc()
    metrics.RUN_SECONDS.observe(monotonic() - began)


async def _outcome_of(dependencies: RunDependencies, run: ClaimedRun, cancellation: CancellationScope) -> RunOutcome:
    """Run the agent of a run, and return the answer or the failure.

    Raises:
        Stale: another worker owns the run.
        asyncio.CancelledError: the process drains.
    """
    revision: AgentRevision | None = None
    usage_so_far: Callable[[], Usage] = Usage
    try:
        runtime = dependencies.agents.runtime_of(run.agent)
        revision = AgentRevision(runtime.agent.metadata.name, runtime.agent.revision)
        loaded = await _retry_transient(lambda: queries.load_run(dependencies.database, run, MAX_WINDOW))
        _refuse_unwanted(run, loaded)
        question = user_turn(run.content, run.execution_id)
        limits = runtime.agent.spec.limits
        journal = StepJournal(dependencies.database, run, loaded.steps)
        async with FrameWriter(
            dependencies.redis,
            tenant=run.tenant,
            execution_id=run.execution_id,
            thread_id=run.session_id,
            epoch=run.epoch,
            still_owned=partial(queries.still_owned, dependencies.database, run),
        ) as frames:
            snapshot = transcript([question, *(load(step.result) for step in loaded.steps)])
            await frames.begin(loaded.steps[-1].keep if loaded.steps else None, snapshot)
            reached(Failpoint.AFTER_BEGIN_BEFORE_FIRST_STEP)
            usage_so_far = journal.usage
            async with cancellation.active_time(limits.seconds):
                answer = await run_agent(
                    [*(load(message) for message in loaded.window), question],
                    runtime.tools,
                    limits,
                    models=runtime.models,
                    journal=journal,
                    frames=frames,
                )
        messages = tuple(dump(message) for message in (question, *answer.messages))
        last_frame = frames.last if frames.whole else None
        end = answered(answer.text, revision, answer.usage, truncated=answer.truncated)
        return RunOutcome(end, messages, last_frame)
    except RunFailed as failure:
        log.warning("run_failed", execution_id=str(run.execution_id), reason=failure.reason, detail=failure.detail)
        return RunOutcome(failed(failure.reason, failure.explanation, revision=revision, usage=usage_so_far()))
    except (Stale, Unconfirmed):
        raise
    except Exception:  # the worker's outermost edge: a bug in a run ends that run, with notice
        log.exception("run_crashed", execution_id=str(run.execution_id))
        return RunOutcome(failed(FailureReason.INTERNAL, revision=revision))


def _refuse_unwanted(run: ClaimedRun, loaded: LoadedRun) -> None:
    """Raise RunFailed if a run has to end before its agent works on it."""
    if loaded.cancelled:
        raise Cancelled("before it started")
    if loaded.expired:
        raise OutOfTime("before it started")
    if loaded.session_deleted:
        raise SessionDeleted
    if run.tries > MAX_TRIES:
        raise RunFailed("too many tries", explanation=f"The request was given up after {MAX_TRIES} tries.")


async def _write_end(dependencies: RunDependencies, run: ClaimedRun, outcome: RunOutcome) -> None:
    """Commit the end, then append the terminal frame; if Redis is away, the sweep appends it later."""

    async def commit() -> DueTerminalFrame:
        async with dependencies.database.transaction() as tx:
            frame = await end_run(tx, dependencies.outbox, run, outcome.end, messages=outcome.messages)
            reached(Failpoint.AFTER_END_BEFORE_COMMIT)
        return frame

    frame = await _retry_transient(commit)
    reached(Failpoint.AFTER_END_BEFORE_TERMINAL_FRAME)
    try:
        await append_due_terminal_frame(dependencies.redis, frame, last=outcome.last_frame)
        reached(Failpoint.AFTER_TERMINAL_FRAME_BEFORE_CLEAR)
        await ends.clear_due_terminal_frame(dependencies.database, frame)
    except Unconfirmed as error:
        log.warning("terminal_frame_left_to_sweep", execution_id=str(run.execution_id), error=str(error))


async def _hand_back(dependencies: RunDependencies, run: ClaimedRun) -> None:
    try:
        await queries.hand_back(dependencies.database, run)
        log.info("run_handed_back", execution_id=str(run.execution_id), epoch=run.epoch)
    except Unconfirmed as error:
        log.warning("run_left_to_lease", execution_id=str(run.execution_id), error=str(error))


async def _retry_transient[T](call: Callable[[], Awaitable[T]]) -> T:
    """Make a database call until the database answers, so that work that is done is not lost.

    Raises:
        Stale: the database is back, and another worker owns the run.
    """
    pause = wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05)
    async for attempt in AsyncRetrying(retry=retry_if_exception_type(Unconfirmed), wait=pause, reraise=True):
        with attempt:
            return await call()
    raise AssertionError("retrying ends with a result or an error")
