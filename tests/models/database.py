"""The real Postgres, one call at a time: our `Database`, `Tx` and statements over connections with gates.

Below `Database` stands what SQLAlchemy's pool is in a service: it begins, executes, commits and rolls back on asyncpg
connections. A lost call closes its connection: before a commit nothing is durable, after one the caller never hears of
it. The server is not asked to crash: what a dead process leaves open is rolled back, as the server does for a closed
socket.

The clock of the database is the model's. `now()` and `pg_postmaster_start_time()` are functions of the schema, found
before those of `pg_catalog`; they return settings of the connection which move between transactions only, so that
`now()` is constant within one, as the real one is. The text of every statement is the product's.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Self, cast

import asyncpg
from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncEngine

from shared_clients.postgres import Database
from tests.models.scheduler import ACTING, CURRENT, Fate, FrozenLoop, Outside, Process, Scheduler

EPOCH: Final = datetime(2030, 1, 1, tzinfo=UTC)
CONNECTIONS: Final = 24
UP_FOR: Final = timedelta(days=1)
CLOCK: Final = """
    CREATE FUNCTION {schema}.now() RETURNS timestamptz STABLE LANGUAGE sql
        AS $$ SELECT current_setting('model.now')::timestamptz $$;
    CREATE FUNCTION {schema}.pg_postmaster_start_time() RETURNS timestamptz STABLE LANGUAGE sql
        AS $$ SELECT current_setting('model.up')::timestamptz $$;
    DO $do$
    DECLARE c record;
    BEGIN
        FOR c IN SELECT table_name, column_name, column_default FROM information_schema.columns
                 WHERE table_schema = '{schema}' AND column_default LIKE '%now()%' LOOP
            EXECUTE format('ALTER TABLE {schema}.%I ALTER %I SET DEFAULT %s', c.table_name, c.column_name,
                           regexp_replace(c.column_default, '(pg_catalog.)?now', '{schema}.now'));
        END LOOP;
    END $do$
"""
WAITING: Final = """
    SELECT pid FROM unnest($1::int[]) AS pid WHERE cardinality(pg_blocking_pids(pid)) > 0
"""
NAMES: Final = re.compile(r"(?<!:):([a-z_]+)")


@lru_cache
def positional(statement: str) -> tuple[str, tuple[str, ...]]:
    """Return a statement with $1, $2, … for its `:names`, and the names in that order."""
    names: dict[str, int] = {}
    text = NAMES.sub(lambda found: f"${names.setdefault(found[1], len(names) + 1)}", statement)
    return text, tuple(names)


@dataclass
class Result:
    """As much of SQLAlchemy's as `Tx` reads."""

    found: Sequence[Mapping[str, Any]]
    rowcount: int

    def mappings(self) -> Self:
        return self

    def all(self) -> Sequence[Mapping[str, Any]]:
        return self.found

    def one_or_none(self) -> Mapping[str, Any] | None:
        assert len(self.found) <= 1
        return self.found[0] if self.found else None


@dataclass(eq=False)
class Socket:
    """A connection to the server, and what the model knows of it."""

    driver: asyncpg.Connection
    pid: int
    at: str = ""
    user: "Connection | None" = None
    in_flight: bool = False
    open: bool = False


class Server(Outside):
    """A Postgres that the model owns: its sockets, and its clock."""

    def __init__(self, loop: FrozenLoop, url: str, schema: str) -> None:
        self.schema = schema
        self.now = EPOCH
        self.up_since = EPOCH - UP_FOR
        self.down = False
        self.heard_as: dict[str, str] = {}
        self.misheard = 0
        self.used: list[Socket] = []
        self._loop = loop
        self._url = url.replace("+asyncpg", "")
        self._free: list[Socket] = []
        self._waiting: frozenset[int] = frozenset()
        self._news: asyncio.Future[None] | None = None

    async def start(self) -> None:
        self._monitor = (await _connect(self)).driver
        self._witness, self._one_at_a_time = await _connect(self), asyncio.Lock()
        self._free = [await _connect(self) for _ in range(CONNECTIONS)]

    async def reset(self, *tables: str) -> None:
        """Forget everything: no row, no open transaction, the clock at its beginning."""
        self.now, self.up_since, self.down = EPOCH, EPOCH - UP_FOR, False
        for socket in (*self.used, *self._free):
            await socket.driver.execute("ROLLBACK; SELECT setseed(0.5)" if socket.open else "SELECT setseed(0.5)")
            socket.open, socket.user, socket.at = False, None, ""
        self._free = sorted({*self._free, *self.used}, key=lambda socket: -socket.pid)
        self.used = []
        await self.look(f"TRUNCATE {', '.join(tables)}")

    async def close(self) -> None:
        for socket in (*self.used, *self._free):
            await socket.driver.close()
        await self._witness.driver.close()
        await self._monitor.close()

    async def look(self, statements: str) -> None:
        await self._monitor.execute(f"SET model.now = '{self.now.isoformat()}'; {statements}")

    async def rows(self, statement: str, *values: object) -> Sequence[Mapping[str, Any]]:
        """Ask the server past all gates."""
        return cast("Sequence[Mapping[str, Any]]", await self._monitor.fetch(statement, *values))

    def tick(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def take(self, user: "Connection") -> Socket:
        if not self._free:
            raise asyncpg.TooManyConnectionsError("all connections of the model are in use")
        socket = self._free.pop()
        socket.user = user
        self.used.append(socket)
        return socket

    async def give_back(self, socket: Socket) -> None:
        if socket.open or socket.driver.is_in_transaction():  # who died at BEGIN has not noted it
            await self.send(socket, "ROLLBACK")
        if socket in self.used:
            self.used.remove(socket)
            socket.user = None
            self._free.append(socket)

    async def send(self, socket: Socket, text: str, values: Sequence[object] | None = None) -> Result:
        """Have the server do something; the scheduler waits for it."""
        socket.in_flight = True
        if text == "ROLLBACK":
            socket.at = ""
        try:
            if values is None:
                await socket.driver.execute(text)
                return Result((), 0)
            prepared = await socket.driver.prepare(text)
            found = await prepared.fetch(*values)
            return Result(found, int((prepared.get_statusmsg() or "0").rpartition(" ")[2] or 0))
        finally:
            socket.in_flight = False
            self._tell()

    async def begin(self, socket: Socket, statement: str = "") -> None:
        """Bring the socket's clock up to date, which a transaction does at its beginning only.

        The settings are a part of the transaction: where that is rolled back, they have to be made again.
        """
        actor = f"{CURRENT.get().name}#{ACTING.get()}"
        at = (
            f"SET model.now = '{self.now.isoformat()}'; SET model.up = '{self.up_since.isoformat()}'; "
            f"SET model.actor = '{actor}'; "
        )
        if socket.at == at and not statement:
            return
        prefix, socket.at = "" if socket.at == at else at, ""
        await self.send(socket, prefix + statement)
        socket.at = at

    async def settled(self) -> None:
        while flights := _flights(self):
            if flights <= self._waiting:
                self._waiting = await _blocked(self, flights)
                if flights == self._waiting:
                    return
            else:
                self._news = self._loop.create_future()
                self._loop.selector.lull = self._tell
                await self._news
                self._loop.selector.lull = None
                await self._loop.quiet()
                flights = _flights(self)
                self._waiting = await _blocked(self, flights) if flights else frozenset()

    async def bury(self, process: Process) -> None:
        for socket in [socket for socket in self.used if socket.user and socket.user.process is process]:
            while socket.in_flight:
                await self._monitor.execute("SELECT pg_cancel_backend($1)", socket.pid)
            await self.give_back(socket)

    async def restart(self) -> None:
        """Lose every connection, and begin again now."""
        self.up_since = self.now
        for socket in list(self.used):
            while socket.in_flight:
                await self._monitor.execute("SELECT pg_cancel_backend($1)", socket.pid)
            await self.give_back(socket)

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def heard(server: Server, statement: str) -> str:
    """Return the statement that is carried out: the product's, or one with a planted fault."""
    for part, instead in server.heard_as.items():
        if part in statement:
            server.misheard += 1
            statement = statement.replace(part, instead)
    return statement


def database_of(server: Server, scheduler: Scheduler) -> Database:
    """Return the schema as one process opens it."""
    return Database(cast("AsyncEngine", Engine(server, scheduler, autocommit=False)), server.schema)


async def witnessed(server: Server, statement: str, *values: object) -> Sequence[Mapping[str, Any]]:
    """Ask the server from inside of work that is being stepped."""
    async with server._one_at_a_time:
        return (await server.send(server._witness, statement, values)).found


def _flights(server: Server) -> set[int]:
    return {socket.pid for socket in (server._witness, *server.used) if socket.in_flight}


async def _blocked(server: Server, flights: set[int]) -> frozenset[int]:
    """Return those that wait for a lock."""
    return frozenset(row["pid"] for row in await server._monitor.fetch(WAITING, list(flights)))


async def _connect(server: Server) -> Socket:
    driver = await asyncpg.connect(
        server._url,
        server_settings={
            "search_path": f"{server.schema}, pg_catalog",
            "synchronous_commit": "off",
            "deadlock_timeout": "20ms",
            "jit": "off",
            "model.now": server.now.isoformat(),
            "model.up": server.up_since.isoformat(),
        },
    )
    await driver.set_type_codec("jsonb", encoder=str, decoder=json.loads, schema="pg_catalog")
    await driver.execute("SELECT setseed(0.5)")
    return Socket(driver, driver.get_server_pid())


@dataclass
class Engine:
    """What `Database` knows as SQLAlchemy's engine."""

    server: Server
    scheduler: Scheduler
    autocommit: bool

    def execution_options(self, *, isolation_level: str) -> "Engine":
        assert isolation_level == "AUTOCOMMIT"
        return Engine(self.server, self.scheduler, autocommit=True)

    def connect(self) -> "Connection":
        return Connection(self)


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction, as SQLAlchemy hands it out."""

    connection: "Connection"

    async def commit(self) -> None:
        await self.connection.commit()

    async def rollback(self) -> None:
        await self.connection.roll_back()


@dataclass
class Connection:
    """One use of a connection."""

    engine: Engine
    process: Process = field(default_factory=CURRENT.get)

    @property
    def _mine(self) -> bool:
        return not self.process.dead and self._socket.user is self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._mine:
            await self.engine.server.give_back(self._socket)

    async def begin(self) -> "Transaction":
        await self._call("begin", lambda: self.engine.server.begin(self._socket, "BEGIN"), durable=False)
        self._socket.open = True
        return Transaction(self)

    async def commit(self) -> None:
        await self._call("commit", lambda: self.engine.server.send(self._socket, "COMMIT"), durable=True)

    async def execute(self, statement: TextClause, values: Mapping[str, object]) -> Result:
        server, socket = self.engine.server, self._socket
        text, names = positional(heard(server, statement.text))

        async def executed() -> Result:
            if self.engine.autocommit:
                await server.begin(socket)
            return await server.send(socket, text, [values[name] for name in names])

        label = " ".join(statement.text.split()[:3])
        return await self._call(label, executed, durable=self.engine.autocommit)

    async def _open(self) -> Self:
        self.process.refuse_dead()
        if self.engine.server.down:
            await self.engine.scheduler.gate("no database", may_fail=False)
            raise ConnectionRefusedError
        self._socket = self.engine.server.take(self)
        return self

    async def _call[T](self, label: str, work: Callable[[], Awaitable[T]], *, durable: bool) -> T:
        gate = self.engine.scheduler.gate
        fate = await gate(label)
        await self._check(fate)
        try:
            done = await work()
        except asyncpg.QueryCanceledError:
            self.process.refuse_dead()
            raise
        self._socket.open = self._socket.open and label != "commit"
        if durable:
            await self._check(await gate(f"answer to {label}"))
        return done

    async def _check(self, fate: Fate) -> None:
        """Raise what the driver raises when the connection has gone."""
        self.process.refuse_dead()
        if fate is Fate.LOST or not self._mine:
            await self.close()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    async def roll_back(self) -> None:
        if self._mine:
            await self.engine.server.send(self._socket, "ROLLBACK")
            self._socket.open = False
