"""Leases, claims and fences as a model: workers of agent-service that die, hang and come back, over the same runs.

Each worker is the real inbox, slots, lease, claim and `perform_run`, with a scripted model. A trigger writes down, in
the transaction of each write to a run, who made it under which epoch; the order of those lines is the order of the row
locks. What has to hold is read from them: who writes owns the run's epoch, whoever takes over from a worker does so
after its lease and not right after an outage, and every run ends once.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from agent_service import events
from agent_service.domain.runs import ClaimedRun
from agent_service.queries.runs import RUNS
from agent_service.usecases.claim_runs import claim_runs
from agent_service.usecases.perform_run import RunDependencies
from agent_service.workers import CANCELLATION_POLL_SECONDS, ActiveRuns
from durable_work.inbox import Inbox
from durable_work.jobs import RENEW_SECONDS, Slots, WorkerLease, run_slots
from durable_work.outbox import Outbox
from run_frames.log import log_key, read_log
from shared_clients.bus.port import Message
from shared_clients.errors import Unconfirmed
from shared_clients.loops import Tasks, every
from shared_clients.redis import CommandBatcher, Redis, _in_process
from tests.models.database import Server, database_of
from tests.models.machine import CHOICES, Model
from tests.models.scheduler import ACTING, Process, must
from tests.simulators.bus import ScriptedBus
from tests.simulators.performing import ScriptedAgents
from tests.simulators.viewer import seen
from tests.simulators.working import TABLES, Session

SEATS = 3
SESSIONS = 2
LIFETIME = timedelta(days=7300)
SCRIPT = """
spec:
  rules: [{when: {tool: calculator}, reply: {text: It is 42.}}]
  default: {calls: [{tool: calculator, arguments: {expression: "6*7"}}]}
"""
INSTRUMENTS = """
    CREATE TABLE IF NOT EXISTS model_writes (
        seq bigserial, run uuid, session uuid, turn bigint, kind text, epoch bigint, actor text,
        lease timestamptz, at timestamptz, up timestamptz
    );
    CREATE OR REPLACE FUNCTION model_run_written() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE what text; old_status text := ''; old_epoch bigint := 0; old_worker uuid; lease timestamptz;
    BEGIN
        IF TG_OP = 'UPDATE' THEN
            old_status := OLD.status; old_epoch := OLD.epoch; old_worker := OLD.worker;
        END IF;
        IF NEW.epoch <> old_epoch AND old_status = 'running' THEN what := 'take over';
            SELECT expires_at INTO lease FROM worker_leases WHERE worker = old_worker;
        ELSIF NEW.epoch <> old_epoch THEN what := 'claim';
        ELSIF NEW.finished_at IS NOT NULL AND old_status IN ('queued', 'running') AND NEW.status <> old_status THEN
            what := CASE old_status WHEN 'running' THEN 'end' ELSE 'end unclaimed' END;
        ELSIF NEW.finished_at IS NOT NULL AND old_status NOT IN ('', 'queued', 'running')
              AND (NEW.status, NEW.answer, NEW.failure) IS DISTINCT FROM (OLD.status, OLD.answer, OLD.failure) THEN
            what := 'end again';
        ELSIF old_status = 'running' AND NEW.status = 'queued' THEN what := 'hand back';
        ELSE RETURN NULL;
        END IF;
        INSERT INTO model_writes (run, session, turn, kind, epoch, actor, lease, at, up) VALUES (NEW.execution_id,
            NEW.session_id, NEW.turn, what, NEW.epoch, current_setting('model.actor'), lease, now(),
            pg_postmaster_start_time());
        RETURN NULL;
    END $$;
    CREATE OR REPLACE FUNCTION model_step_written() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO model_writes (run, kind, epoch, actor)
        VALUES (NEW.execution_id, 'step', NEW.epoch, current_setting('model.actor'));
        RETURN NULL;
    END $$;
    CREATE OR REPLACE TRIGGER model_run AFTER INSERT OR UPDATE ON runs
        FOR EACH ROW EXECUTE FUNCTION model_run_written();
    CREATE OR REPLACE TRIGGER model_step AFTER INSERT ON steps FOR EACH ROW EXECUTE FUNCTION model_step_written()
"""


class WatchedRuns(ActiveRuns):
    """Notes the epoch under which a task acts, for the trigger to write down."""

    async def perform(self, run: ClaimedRun) -> None:
        ACTING.set(str(run.epoch))
        await super().perform(run)


class Worker:
    """One process of agent-service, with the loops that claim runs and stop them."""

    def __init__(self, model: "WorkersModel", process: Process) -> None:
        self.process = process
        self.database = database_of(model.outside, model.scheduler)
        self.outbox = Outbox(self.database, ScriptedBus())
        self.lease = WorkerLease(self.database, (RUNS,))
        self.active_runs = WatchedRuns(RunDependencies(self.database, self.outbox, model.redis, ScriptedAgents(SCRIPT)))
        self.slots: Slots[ClaimedRun] = Slots(2, self.active_runs.perform, self.lease)
        self.inbox = Inbox(self.database, "agent-service", events.reactions(self.outbox, self.slots))

    async def work(self) -> None:
        async with Tasks() as tasks:
            tasks.start("renew", every(RENEW_SECONDS, self.lease.renew))
            tasks.start("stop unwanted", every(CANCELLATION_POLL_SECONDS, self._stop_unwanted))
            tasks.start("retry", every(1.0, self.inbox.retry))
            tasks.start("slots", lambda: run_slots(self.slots, self._claim))
            await asyncio.get_running_loop().create_future()

    async def drain(self) -> None:
        await self.slots.close()
        await self.lease.release()

    async def _stop_unwanted(self) -> None:
        await self.active_runs.stop_unwanted(self.lease.worker)

    async def _claim(self, most: int, after: str, full: Collection[str]) -> list[ClaimedRun]:
        return list(await claim_runs(self.database, self.outbox, self.lease.worker, most, after=after, full=full))


class WorkersModel(Model):
    name = "lease and fence"
    outside: ClassVar[Server]
    redis: Redis

    @initialize()
    def open(self) -> None:
        self.now(self.outside.reset(*TABLES, "model_writes"))
        self.scheduler.on_tick = self.outside.tick
        self.seats: list[Worker | None] = [None] * SEATS
        self.sessions = [Session() for _ in range(SESSIONS)]
        self.sent: dict[tuple[int, int], Message] = {}
        self.drained: list[Process] = []
        self.now(_open_redis(self))

    @rule(session=st.integers(0, SESSIONS - 1), seat=st.integers(0, SEATS - 1), ahead=st.integers(1, 2))
    def request(self, session: int, seat: int, ahead: int) -> None:
        turn = sum(place[0] == session for place in self.sent) + ahead
        for missing in range(turn, 0, -1):
            if (session, missing) not in self.sent:
                self.sent[session, missing] = self.sessions[session].created(missing, expires=LIFETIME)
                _deliver(self, self.sent[session, missing], seat)
                seat = (seat + 1) % SEATS

    @rule(number=st.integers(0, 100), seat=st.integers(0, SEATS - 1))
    def deliver_again(self, number: int, seat: int) -> None:
        if sent := list(self.sent.values()):
            _deliver(self, sent[number % len(sent)], seat)

    @rule(seat=st.integers(0, SEATS - 1))
    def hang(self, seat: int) -> None:
        self.scheduler.hung.add(_seat(self, seat).process)

    @rule(
        session=st.integers(0, SESSIONS - 1), choices=CHOICES, more=CHOICES, early=st.booleans(), leaves=st.booleans()
    )
    def hang_at_work_past_the_lease(
        self, session: int, choices: bytes, more: bytes, *, early: bool, leaves: bool
    ) -> None:
        """Another worker takes over the runs of a process that hangs; then that process wakes.

        With `early` it wakes as soon as its runs were taken over, and its successor hangs for a while. With `leaves` it
        was asked to drain while it hung, and hands back the runs that it takes for its own.
        """
        if not _working(self):
            self.request(session, choices[0] % SEATS, 1)
        self._play_until(choices, lambda: bool(_working(self)))
        if not _working(self):
            return
        hanging = _working(self)[0]
        zombie = hanging.process
        self.scheduler.faults = False
        self.now(self.scheduler.play((choices + more)[: 2 * (choices[1] % 50)]))
        self.scheduler.hung.add(zombie)
        for seat in range(SEATS):
            _seat(self, seat)
        self.now(self.scheduler.tick(3.5))
        before = self.now(_taken_over(self))
        self._play_until(more, lambda: early and self.now(_taken_over(self)) > before)
        if early:
            self.scheduler.hung = {one.process for one in self.seats if one and one.process is not zombie}
            if leaves:
                self.seats = [None if one is hanging else one for one in self.seats]
                self.start(zombie, _drain(self, hanging))
            self.now(self.scheduler.play(choices))
        self.scheduler.faults = True
        self.scheduler.hung.clear()

    def _play_until(self, choices: bytes, so: Callable[[], bool]) -> None:
        for place in range(0, len(choices), 2):
            if so():
                return
            self.now(self.scheduler.play(choices[place : place + 2]))

    @rule()
    def wake_the_hung(self) -> None:
        self.scheduler.hung.clear()

    @rule(seat=st.integers(0, SEATS - 1))
    def drain(self, seat: int) -> None:
        worker, self.seats[seat] = _seat(self, seat), None
        self.start(worker.process, _drain(self, worker))

    @rule(seconds=st.sampled_from([1.0, 4.0]))
    def restart_the_database(self, seconds: float) -> None:
        self.now(_outage(self, seconds))

    @rule(seconds=st.sampled_from([1.0, 3.5]))
    def let_time_pass(self, seconds: float) -> None:
        self.now(self.scheduler.tick(seconds))

    @rule(choices=CHOICES)
    def go_on(self, choices: bytes) -> None:
        self.now(self.scheduler.play(choices))
        while self.drained:
            self.now(self.scheduler.kill(self.drained.pop()))

    @invariant()
    def who_writes_owns_the_epoch(self) -> None:
        self.now(_check(self))

    async def finish(self) -> None:
        self.scheduler.hung.clear()
        await self.scheduler.quieten()
        worker = _seat(self, 0)
        for message in self.sent.values():
            self.scheduler.spawn(worker.process, _handle(self, worker, message))
            await self.scheduler.quieten()
        for _ in range(100):
            await self.scheduler.quieten()
            await self.scheduler.tick(0.5)
            if await _left(self) == 0:
                break
        await self.scheduler.quieten()
        must(await _left(self) == 0, f"{await _left(self)} runs never end")
        await _check(self)
        await _check_ends(self)


def _working(model: WorkersModel) -> list[Worker]:
    return [one for one in model.seats if one and not one.process.dead and one.active_runs._active]


async def _taken_over(model: WorkersModel) -> int:
    rows = await model.outside.rows("SELECT FROM agent_service.model_writes WHERE kind = 'take over'")
    return len(rows)


async def _left(model: WorkersModel) -> int:
    rows = await model.outside.rows("SELECT FROM agent_service.runs WHERE status NOT IN ('queued', 'running')")
    return len(model.sent) - len(rows)


async def _check(model: WorkersModel) -> None:
    holders: dict[object, tuple[int, str]] = {}
    ended: dict[object, object] = {}
    turns: dict[object, int] = {}
    for row in await model.outside.rows("SELECT * FROM agent_service.model_writes ORDER BY seq"):
        run, kind, epoch, actor = row["run"], row["kind"], row["epoch"], row["actor"]
        name = f"run {run} under epoch {epoch}"
        must(run not in ended, f"{actor} wrote '{kind}' to {name}, which had ended")
        if kind in {"claim", "take over"}:
            must(epoch == holders.get(run, (0, ""))[0] + 1, f"{name} was claimed out of order")
            must(row["turn"] == turns.get(row["session"], 0) + 1, f"{name} began before the turn before it ended")
            holders[run] = epoch, actor.partition("#")[0]
            _check_claim(row)
        elif kind != "end unclaimed":
            must(holders[run][0] == epoch, f"{actor} wrote '{kind}' to {name}, which is at {holders[run][0]}")
            holder = holders[run][1]
            unknowing = kind == "hand back" and actor == f"{holder}#"
            must(unknowing or actor == f"{holder}#{epoch}", f"{actor} wrote '{kind}' to {name} of {holder}")
        if kind.startswith("end"):
            ended[run] = kind
            must(row["turn"] == turns.get(row["session"], 0) + 1, f"{name} ended before the turn before it")
            turns[row["session"]] = row["turn"]


async def _check_ends(model: WorkersModel) -> None:
    """Every run has one end, published once, and its log ends as its row does."""
    for session in model.sessions:
        for turn in session.requests:
            [row] = await model.outside.rows(COUNT_PUBLISHED, session.request(turn))
            must(row["ends"] == 1, f"turn {turn} has {row['ends']} ends published")
            must(row["running"] == row["claims"], f"turn {turn}: {row['claims']} claims, {row['running']} published")
            frames = await read_log(model.redis, log_key("acme", session.request(turn)))
            if frames and frames[-1].type == "RUN_FINISHED":
                text = seen(frames, strict=False).text
                must(text == row["answer"], f"turn {turn} shows {text!r} and stores {row['answer']!r}")


async def _outage(model: WorkersModel, seconds: float) -> None:
    model.outside.down = True
    await model.outside.restart()
    await model.scheduler.tick(seconds)
    model.outside.down, model.outside.up_since = False, model.outside.now


async def _open_redis(model: WorkersModel) -> None:
    commands, blocking = _in_process()
    model.redis = Redis(commands, blocking, CommandBatcher(commands))
    model.scheduler.spawn(model.born("redis"), model.redis.batched.run())


def _deliver(model: WorkersModel, message: Message, seat: int) -> None:
    worker = _seat(model, seat)
    model.start(worker.process, _handle(model, worker, message))


async def _drain(model: WorkersModel, worker: Worker) -> None:
    """Drain a worker; the runs that it cannot hand back wait for the end of its lease."""
    with suppress(Unconfirmed):
        await worker.drain()
    model.drained.append(worker.process)


async def _handle(model: WorkersModel, worker: Worker, message: Message) -> None:
    with suppress(Unconfirmed):
        await worker.inbox.consume(message)


def _seat(model: WorkersModel, number: int) -> Worker:
    worker = model.seats[number]
    if worker is None or worker.process.dead:
        process = model.born("worker")
        model.seats[number] = worker = Worker(model, process)
        model.scheduler.spawn(process, worker.work())
    return worker


COUNT_PUBLISHED = """
    SELECT r.answer,
           (SELECT count(*) FROM agent_service.outbox o WHERE o.attributes->>'correlationid' = r.execution_id::text
            AND o.attributes->>'type' LIKE 'flotilla.response.%') AS ends,
           (SELECT count(*) FROM agent_service.outbox o WHERE o.attributes->>'correlationid' = r.execution_id::text
            AND o.attributes->>'type' LIKE 'flotilla.run.%') AS running,
           (SELECT count(*) FROM agent_service.model_writes w WHERE w.run = r.execution_id
            AND w.kind IN ('claim', 'take over')) AS claims
    FROM agent_service.runs r WHERE r.execution_id = $1
"""


def _check_claim(row: Mapping[str, Any]) -> None:
    """See that a worker's lease is waited for, and after an outage the time in which it could be renewed."""
    if row["kind"] == "take over":
        must(row["lease"] is None or row["lease"] <= row["at"], f"{row['actor']} took a run of a living worker")
        must(row["up"] < row["at"] - timedelta(seconds=3), f"{row['actor']} took a run right after an outage")
