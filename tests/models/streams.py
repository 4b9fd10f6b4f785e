"""A run's stream as a model: writers of successive epochs, a Redis that fails, readers that are cut.

The run's row is a small truth here, with the fence that the lease model proves of the real one. What has to hold:
whoever looks, from whichever replica, cut at whichever frame, sees each frame once and in order, one terminal frame at
the end, and as text exactly the stored answer; and where Redis lost nothing, the log as it is.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import ClassVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from run_frames import FrameReader, FrameWriter, append_terminal
from shared_clients.errors import Stale, Transient, Unconfirmed
from shared_clients.redis import Redis
from shared_models.frames import Cursor, Frame
from shared_models.ids import new_id
from tests.models.machine import CHOICES, Model
from tests.models.redis import AS_SAID, Heard, Store
from tests.models.scheduler import Broken, Fate, Process, Scheduler, must
from tests.simulators.streams import Run
from tests.simulators.viewer import Viewer

STEPS = 3
PIECES = ("one ", "two ", "three. ")
REPLICAS = 2
ASKED = {"id": "asked", "role": "user", "content": "Count."}

type Outcome = tuple[str, Mapping[str, object]]


@dataclass
class Row:
    """The run as the database has it: who may write, what is journaled, how it ended."""

    epoch: int = 0
    steps: list[tuple[Cursor, str, str]] = field(default_factory=list)
    answer: str | None = None
    told: bool = False

    def own(self, epoch: int) -> None:
        if epoch != self.epoch or self.answer is not None:
            raise Stale("somebody else's")


class Author:
    """A worker that has claimed the run under an epoch."""

    def __init__(self, model: "StreamsModel", process: Process, epoch: int) -> None:
        self.process = process
        self._model = model
        self._epoch = epoch
        self._redis = model.store.connect()
        model.scheduler.spawn(process, self._redis.batched.run())

    async def work(self) -> None:
        with suppress(Stale):
            last = await self._write()
            await self._pause("commit of the end")
            self._model.row.own(self._epoch)
            self._model.row.answer = "".join(text for _, _, text in self._model.row.steps)
            await self._pause("terminal frame")
            await self._model.tell_end(self._redis, self._epoch, last=last)

    async def _write(self) -> Cursor | None:
        """Say what is not journaled yet, and return the last frame if the log has all of them."""
        row, run = self._model.row, self._model.run
        async with self._model.writer(
            self._redis,
            tenant=run.tenant,
            execution_id=run.execution_id,
            thread_id=run.session_id,
            epoch=self._epoch,
            still_owned=self._still_owned,
        ) as writer:
            said = [{"id": message, "role": "assistant", "content": text} for _, message, text in row.steps]
            await writer.begin(row.steps[-1][0] if row.steps else None, [ASKED, *said])
            for number in range(len(row.steps), STEPS):
                message, text = new_id(), ""
                writer.append("TEXT_MESSAGE_START", messageId=message, role="assistant")
                for piece in PIECES:
                    told = f"{number}.{self._epoch} {piece}"
                    writer.text(message, told)
                    text += told
                    await self._pause("piece")
                writer.append("TEXT_MESSAGE_END", messageId=message)
                await self._pause("journal")
                row.own(self._epoch)
                row.steps.append((writer.last, str(message), text))
        return writer.last if writer.whole else None

    async def _still_owned(self) -> bool:
        if await self._model.scheduler.gate("still mine?") is Fate.LOST:
            raise Transient("the database is away")
        return self._model.row.epoch == self._epoch and self._model.row.answer is None

    async def _pause(self, what: str) -> None:
        await self._model.scheduler.gate(what, may_fail=False)


class Gateway:
    """A replica that relays frames."""

    def __init__(self, model: "StreamsModel", process: Process) -> None:
        self.process = process
        self._model = model
        redis = model.store.connect()
        self.reader = model.reader(redis, self._finished)
        model.scheduler.spawn(process, redis.batched.run())
        model.scheduler.spawn(process, self._read())

    async def _read(self) -> None:
        async with self.reader:
            await asyncio.get_running_loop().create_future()

    async def _finished(self, _tenant: str, execution_ids: Sequence[UUID]) -> Mapping[UUID, Outcome]:
        if await self._model.scheduler.gate("rows?") is Fate.LOST:
            raise Transient("the database is away")
        outcome = self._model.outcome()
        return dict.fromkeys(execution_ids, outcome) if outcome else {}


@dataclass
class Client:
    """Somebody who looks, over any number of connections."""

    viewer: Viewer = field(default_factory=lambda: Viewer(strict=False))
    frames: list[Frame] = field(default_factory=list)
    task: asyncio.Task[object] | None = None

    @property
    def cut(self) -> bool:
        return self.viewer.outcome is None and (self.task is None or self.task.done())

    async def look(self, scheduler: Scheduler, stream: AsyncGenerator[Frame | None]) -> None:
        async with aclosing(stream):
            async for frame in stream:
                await scheduler.gate("client takes", may_fail=False)
                try:
                    self.viewer.take(frame)
                except AssertionError as error:
                    raise Broken(str(error) or f"{frame} contradicts itself") from error
                if frame is not None:
                    self.frames.append(frame)


class StreamsModel(Model):
    name = "resume cursor"
    heard: ClassVar[Heard] = AS_SAID
    writer: ClassVar[type[FrameWriter]] = FrameWriter
    reader: ClassVar[type[FrameReader]] = FrameReader

    @initialize()
    def open(self) -> None:
        self.now(self._open())

    @precondition(lambda self: self.row.answer is None)
    @rule()
    def claim(self) -> None:
        """Somebody takes the run over, whether its last worker is dead or not."""
        self.row.epoch += 1
        author = Author(self, self.born("author"), self.row.epoch)
        self.start(author.process, author.work())

    @rule(replica=st.integers(0, REPLICAS - 1), cut=st.booleans())
    def look(self, replica: int, *, cut: bool) -> None:
        """Somebody new looks, or somebody goes on where the connection was cut."""
        waiting = [client for client in self.clients if client.cut]
        if cut and (client := next((one for one in self.clients if not one.cut and one.task), None)):
            _cut(self, client)
            waiting.append(client)
        if not waiting and len(self.clients) < 4:
            self.clients.append(Client())
            waiting.append(self.clients[-1])
        for client in waiting[:1]:
            self._connect(client, replica)

    @precondition(lambda self: self.row.answer is not None)
    @rule()
    def sweep(self) -> None:
        self._sweep()

    @rule(last=st.sampled_from([None, 1, 2, 5]))
    def lose_data(self, last: int | None) -> None:
        self.now(self.store.lose(self.run.key, last))

    @rule(seconds=st.sampled_from([1.1, 6.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now(self.scheduler.tick(seconds))

    @rule(choices=CHOICES)
    def go_on_further(self, choices: bytes) -> None:
        self.now(self.scheduler.play(choices))

    async def finish(self) -> None:
        """See everybody to the end; then lose the log, and see somebody to it who comes late."""
        await self.scheduler.quieten()
        await self._see_the_end()
        if self.store.losses == 0:
            log = [name.decode() for name, _ in await self.store.entries(self.run.key)]
            for client in self.clients:
                seen = [str(frame.cursor) for frame in client.frames]
                must(client.viewer.resyncs or seen == log, f"{seen} were seen of {log}")
        await self.store.lose(self.run.key, None)
        self.clients.append(Client())
        await self._see_the_end()
        await self.store.close()

    async def _see_the_end(self) -> None:
        for _ in range(80):
            if self.row.answer is None and _nobody_works(self):
                self.row.epoch += 1
                author = Author(self, self.born("author"), self.row.epoch)
                self.scheduler.spawn(author.process, author.work())
            elif self.row.answer is not None and not self.row.told:
                self._sweep()
            for client in self.clients:
                if client.cut:
                    self._connect(client, 0)
            await self.scheduler.tick(0.5)
            await self.scheduler.quieten()
            if self.row.told and all(client.viewer.outcome for client in self.clients):
                break
        must(self.row.answer is not None, "the run never ended")
        for client in self.clients:
            _check(self, client)

    async def tell_end(self, redis: Redis, epoch: int, *, last: Cursor | None) -> None:
        outcome = self.outcome()
        assert outcome is not None
        type_, fields = outcome
        with suppress(Unconfirmed):
            await append_terminal(
                redis,
                tenant=self.run.tenant,
                execution_id=self.run.execution_id,
                epoch=epoch,
                type_=type_,
                fields=fields,
                last=last,
            )
            self.row.told = True

    def outcome(self) -> Outcome | None:
        return None if self.row.answer is None else self.run.outcome(self.row.answer)

    def _connect(self, client: Client, replica: int) -> None:
        gateway = self.gateways[replica]
        if gateway.process.dead:
            gateway = self.gateways[replica] = Gateway(self, self.born("gateway"))
        stream = gateway.reader.follow(self.run.tenant, self.run.execution_id, client.viewer.cursor)

        async def begin() -> None:
            client.task = self.scheduler.spawn(gateway.process, client.look(self.scheduler, stream))

        if self.loop.is_running():
            client.task = self.scheduler.spawn(gateway.process, client.look(self.scheduler, stream))
        else:
            self.now(begin())

    def _sweep(self) -> None:
        process = self.born("sweep")

        async def sweep() -> None:
            redis = self.store.connect()
            self.scheduler.spawn(process, redis.batched.run())
            await self.tell_end(redis, self.row.epoch, last=None)

        if self.loop.is_running():
            self.scheduler.spawn(process, sweep())
        else:
            self.start(process, sweep())

    async def _open(self) -> None:
        self.store = Store(self.scheduler, type(self).heard)
        self.run, self.row = Run(self.store.connect()), Row()
        self.clients: list[Client] = []
        self.gateways = [Gateway(self, self.born("gateway")) for _ in range(REPLICAS)]
        await self.scheduler.settle()


def _check(model: StreamsModel, client: Client) -> None:
    must(client.viewer.outcome is not None, f"a client that has seen {client.viewer.cursor} never got an end")
    must(client.viewer.text == model.row.answer, f"{client.viewer.text!r} was shown, {model.row.answer!r} is stored")


def _nobody_works(model: StreamsModel) -> bool:
    return not any(process.name.startswith("author") and len(process.tasks) > 1 for process in model.processes)


def _cut(model: StreamsModel, client: Client) -> None:
    async def cut() -> None:
        assert client.task is not None
        client.task.cancel()
        await model.scheduler.settle()

    model.now(cut())
