"""A run and those who look at it: what a test of frames needs on both sides of Redis.

Faked: the durable rows, as a dict that can be asked and can fail. Everything else is the real thing.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from run_frames import FrameReader, FrameWriter, append_terminal
from run_frames.log import log_key, read_log
from shared_clients.errors import Transient
from shared_clients.redis import Redis
from shared_models.frames import START, Cursor, Frame, TerminalEvent, terminal_frame
from shared_models.ids import new_id
from shared_models.requests import Failure, FailureReason, RequestView, Response, Status

PATIENCE = 15.0
"""Seconds after which a test gives up on something that should come at once."""


@dataclass
class Rows:
    """Durable rows of runs that ended; `down` is how often they cannot be asked first."""

    ended: dict[UUID, TerminalEvent] = field(default_factory=dict)
    down: int = 0
    asked: list[Sequence[tuple[str, UUID]]] = field(default_factory=list)

    async def __call__(self, tenant: str, execution_ids: Sequence[UUID]) -> Mapping[UUID, TerminalEvent]:
        self.asked.append([(tenant, execution_id) for execution_id in execution_ids])
        if self.down:
            self.down -= 1
            raise Transient("the database is away")
        return {run: self.ended[run] for run in execution_ids if run in self.ended}


@dataclass
class Run:
    """One run of one tenant, whoever works on it."""

    redis: Redis
    execution_id: UUID = field(default_factory=new_id)
    session_id: UUID = field(default_factory=new_id)
    owned: bool = True
    asked: int = 0
    tenant: str = "acme"

    @property
    def key(self) -> str:
        return log_key(self.tenant, self.execution_id)

    async def still_owned(self) -> bool:
        self.asked += 1
        return self.owned

    def writer(self, epoch: int = 1, redis: Redis | None = None) -> FrameWriter:
        return FrameWriter(
            redis or self.redis,
            tenant=self.tenant,
            execution_id=self.execution_id,
            thread_id=self.session_id,
            epoch=epoch,
            still_owned=self.still_owned,
        )

    def outcome(self, answer: str | None) -> TerminalEvent:
        view = RequestView(
            request_id=self.execution_id,
            session_id=self.session_id,
            turn=1,
            status=Status.FAILED if answer is None else Status.COMPLETED,
            response=None if answer is None else Response(content=answer),
            error=Failure(reason=FailureReason.MODEL_CUT, message="It broke off.") if answer is None else None,
            created_at=datetime.now(UTC),
        )
        return terminal_frame(view)

    async def finish(self, answer: str | None, *, epoch: int = 1, whole: bool = True) -> None:
        log = await self.log() if whole else []
        await append_terminal(
            self.redis,
            tenant=self.tenant,
            execution_id=self.execution_id,
            epoch=epoch,
            event=self.outcome(answer),
            last=log[-1].cursor if log else None,
        )

    async def tell(self, answer: Sequence[str], *, epoch: int = 1) -> None:
        """Work as a run does whose answer comes in these pieces, each of which is a frame."""
        message = new_id()
        async with self.writer(epoch) as writer:
            await writer.begin(None, [])
            writer.append("TEXT_MESSAGE_START", messageId=message, role="assistant")
            for piece in answer:
                writer.text(message, piece)
                await flushed(writer)
            writer.append("TEXT_MESSAGE_END", messageId=message)
        await self.finish("".join(answer), epoch=epoch, whole=writer.whole)

    async def log(self) -> list[Frame]:
        return await read_log(self.redis, self.key)

    async def follow(self, reader: FrameReader, after: Cursor = START) -> list[Frame]:
        """Return what a follower gets up to the end."""
        return [frame async for frame in reader.follow(self.tenant, self.execution_id, after) if frame]


async def flushed(writer: FrameWriter) -> None:
    """Wait until all is in the log, or can never be."""
    async with asyncio.timeout(PATIENCE):
        await writer._backlog.flushed.wait()  # the task's own event, which callers never need


@asynccontextmanager
async def watching(reader: FrameReader, run: Run, after: Cursor = START) -> AsyncIterator["Watcher"]:
    """Follow a run one frame at a time."""
    async with aclosing(reader.follow(run.tenant, run.execution_id, after)) as stream:
        yield Watcher(stream)


@dataclass
class Watcher:
    """One follower's stream, and what has come of it."""

    stream: AsyncIterator[Frame | None]
    frames: list[Frame] = field(default_factory=list)

    async def until(self, cursor: Cursor) -> list[Frame]:
        """Take frames up to this cursor, and return all there were."""
        async with asyncio.timeout(PATIENCE):
            while not self.frames or self.frames[-1].cursor < cursor:
                if frame := await anext(self.stream):
                    self.frames.append(frame)
        return self.frames

    async def rest(self) -> list[Frame]:
        """Take all up to the end of the stream, and return all there were."""
        async with asyncio.timeout(PATIENCE):
            async for frame in self.stream:
                if frame:
                    self.frames.append(frame)
        return self.frames
