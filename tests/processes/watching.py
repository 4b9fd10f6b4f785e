"""Who watches a run while its processes die: a client on its stream, the provider, the tables and the log.

Faked: the provider, which is the simulator in a process of its own. The rest is looked at from outside, as an operator
would: over HTTP, in Postgres and in Redis.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, cast
from uuid import UUID

import aiohttp
import asyncpg
from pydantic import TypeAdapter
from pydantic_core import to_json
from redis.asyncio import Redis

from run_frames.log import log_key
from shared_models.frames import Cursor, Frame
from tests.client import Client, Request, Seen
from tests.fleets import ProcessFleet
from tests.simulators.openai_wire import Behaviour, Call

PATIENCE: Final = 40.0
"""Seconds after which something that should happen did not, on a machine that is busy with other things."""
TENANT: Final = "default"
MEASURED: Final[list[str]] = []
"""What `report` was told, in order."""
_CALLS: Final = TypeAdapter(list[Call])

type Entry = tuple[bytes, dict[bytes, bytes]]
"""Of a stream in Redis: id and fields."""


async def until(what: str, look: Callable[[], Awaitable[bool]], pause: float = 0.02) -> None:
    """Look again and again until it is so: other processes have no other way of telling."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not await look():  # noqa: ASYNC110 - another process's news
                await asyncio.sleep(pause)
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE:g} s: {what}") from None


@dataclass(frozen=True, slots=True)
class Provider:
    """The simulator, as a test talks to it."""

    url: str
    session: aiohttp.ClientSession

    async def behave(self, *behaviours: Behaviour) -> None:
        """Forget all calls, and queue what the next ones get."""
        (await self.session.delete(f"{self.url}/log")).raise_for_status()
        body = to_json([behaviour.model_dump(exclude_defaults=True) for behaviour in behaviours])
        (await self.session.post(f"{self.url}/behaviours/sim", data=body)).raise_for_status()

    async def calls(self) -> list[Call]:
        async with self.session.get(f"{self.url}/log") as response:
            return _CALLS.validate_json(await response.read())

    async def outcomes(self) -> list[str]:
        return [call.outcome for call in await self.calls()]


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the tables have it."""

    status: str
    epoch: int
    tries: int
    worker: UUID | None
    answer: str | None


@dataclass(frozen=True, slots=True)
class Tables:
    """agent-service's tables and the logs in Redis, as an operator sees them."""

    postgres: asyncpg.Connection
    redis: Redis

    async def run(self, execution_id: str) -> Run:
        row = await self.postgres.fetchrow(
            "SELECT status, epoch, tries, worker, answer FROM runs WHERE execution_id = $1", UUID(execution_id)
        )
        return Run(**row)

    async def is_told(self, execution_id: str) -> bool:
        """Tell whether a run has ended and nothing is left to do about it."""
        query = "SELECT finished_at IS NOT NULL AND terminal_frame IS NULL FROM runs WHERE execution_id = $1"
        return bool(await self.postgres.fetchval(query, UUID(execution_id)))

    async def everything_of(self, execution_id: str) -> Mapping[str, Sequence[tuple[Any, ...]]]:
        """Return all rows that a run has made, to be compared with those of another time."""
        queries = {table: f"SELECT * FROM {table} WHERE execution_id = $1" for table in ("runs", "steps", "messages")}
        return {
            table: [tuple(row) for row in await self.postgres.fetch(query, UUID(execution_id))]
            for table, query in queries.items()
        }

    async def steps(self, execution_id: str) -> list[tuple[str, int]]:
        """Return the journal: key and epoch of each step."""
        query = "SELECT key, epoch FROM steps WHERE execution_id = $1 ORDER BY created_at, key"
        return [(row["key"], row["epoch"]) for row in await self.postgres.fetch(query, UUID(execution_id))]

    async def workers(self) -> int:
        count: int = await self.postgres.fetchval("SELECT count(*) FROM worker_leases WHERE expires_at > now()")
        return count

    async def log(self, execution_id: str) -> list[Frame]:
        entries = cast("list[Entry]", await self.redis.xrange(self.log_key(execution_id)))
        return [Frame(Cursor.parse(id_.decode()), entry[b"t"].decode(), entry[b"d"]) for id_, entry in entries]

    def log_key(self, execution_id: str) -> str:
        return log_key(TENANT, UUID(execution_id))

    @asynccontextmanager
    async def locked(self, table: str) -> AsyncIterator[None]:
        """Have writes to a table wait, so that a process can be killed between two of them."""
        async with self.postgres.transaction():
            await self.postgres.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            yield


@dataclass
class Watcher:
    """Somebody who has asked for something and follows the answer.

    Attributes:
        seen: all frames so far.
        times: when each of them came.
        cut: whether the connection broke.
    """

    seen: Seen = field(default_factory=Seen)
    times: list[float] = field(default_factory=list)
    run_id: str = ""
    cut: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    async def first(self, what: str, fits: Callable[[Frame], bool], count: int = 1) -> float:
        """Wait for the first (or a later) frame that fits, and return when it came."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    found = [at for frame, at in zip(self.seen.frames, self.times, strict=True) if fits(frame)]
                    if len(found) >= count:
                        return found[count - 1]
                    assert self._task is None or not self._task.done(), f"the stream ended without {what}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE:g} s: {what}; came {len(self.seen.frames)} frames") from None

    async def text(self, count: int = 5) -> None:
        """Wait until that many pieces of text have come."""
        await self.first("text", lambda frame: frame.type == "TEXT_MESSAGE_CONTENT", count)

    async def epoch(self, epoch: int) -> float:
        """Wait for the first frame of an epoch, and return when it came."""
        return await self.first(f"epoch {epoch}", lambda frame: frame.cursor.epoch == epoch)

    async def end(self) -> None:
        """Wait for the end of the stream."""
        assert self._task is not None
        await asyncio.wait_for(self._task, PATIENCE)

    async def follow(self, client: Client, request: Request, url: str | None) -> None:
        try:
            async with client.stream(request, self.seen, url) as stream:
                assert stream.status == 200, await stream.rest()
                self.run_id = stream.headers["Flotilla-Execution-Id"]
                async with aclosing(stream.read()) as frames:
                    async for _ in frames:
                        self.times.append(monotonic())
                        self._news.set()
        except aiohttp.ClientError:
            self.cut = True
        finally:
            self._news.set()


@asynccontextmanager
async def asking(
    client: Client, content: str, *, agent: str = "caller", url: str | None = None
) -> AsyncIterator[Watcher]:
    """Ask an agent, and follow the run."""
    watcher = Watcher()
    request = Request("POST", "/chat", body=to_json({"content": content, "agent": agent}))
    async with following(watcher, client, request, url):
        yield watcher


@asynccontextmanager
async def following(
    watcher: Watcher, client: Client, request: Request, url: str | None = None
) -> AsyncIterator[Watcher]:
    watcher._task = asyncio.create_task(watcher.follow(client, request, url))
    try:
        await watcher.first("the first frame", lambda _: True, len(watcher.seen.frames) + 1)
        yield watcher
    finally:
        watcher._task.cancel()
        await asyncio.wait([watcher._task])


async def holder(fleet: ProcessFleet, tables: Tables, run_id: str) -> str:
    """Return the name of the process that works on a run."""
    run = await tables.run(run_id)
    assert run.worker is not None, f"nobody works on {run_id}: {run}"
    return fleet.name_of(run.worker)


async def check_end(client: Client, tables: Tables, watcher: Watcher, url: str | None = None) -> str:
    """Check what has to be so of every answer, whatever happened on the way, and return it.

    Args:
        client: asks again.
        tables: of agent-service.
        watcher: has seen the run to its end.
        url: of the gateway to ask; without it, any.
    """
    seen = watcher.seen
    assert seen.viewer.outcome is not None, "the stream ended without a terminal frame"
    assert seen.viewer.outcome[0] == "RUN_FINISHED", seen.viewer.outcome
    log = await tables.log(watcher.run_id)
    assert [frame.cursor for frame in log if frame.terminal] == [log[-1].cursor], "one terminal frame, and it is last"
    assert log == seen.frames, "what the client has seen is what the log holds"
    answer = await client.call(Request("GET", f"/api/v1/requests/{watcher.run_id}/result?wait=20"), url)
    assert answer.status == 200, answer
    content: str = answer.json()["response"]["content"]
    assert seen.answer == content
    assert (await tables.run(watcher.run_id)).answer == content
    again = Seen()
    async with client.stream(Request("GET", f"/chat/{watcher.run_id}"), again, url) as stream:
        async for _ in stream.read():
            pass
    assert again.frames == seen.frames, "whoever reads it later sees the same"
    return content


async def everybody_is_up(fleet: ProcessFleet, client: Client, tables: Tables) -> None:
    """Wait until all processes serve, also those that were killed."""

    async def gateways() -> bool:
        try:
            answers = [await client.call(Request("GET", "/api/v1/requests?limit=1"), url) for url in fleet.urls]
        except aiohttp.ClientError:
            return False
        return all(answer.status == 200 for answer in answers)

    async def workers() -> bool:
        return await tables.workers() == 2

    await until("both gateways and request-manager are up", gateways, 0.1)
    await until("both workers are up", workers, 0.1)


def report(what: str, seconds: float, promised: float | None = None) -> None:
    """Have a figure told after the tests, and hold it against what is promised."""
    limit = "" if promised is None else f" (promised: {promised:g} s)"
    MEASURED.append(f"{what}: {seconds:.2f} s{limit}")
    assert promised is None or seconds <= promised, MEASURED[-1]
