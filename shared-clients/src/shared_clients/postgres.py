"""Postgres as Flotilla uses it: SQL text, one schema per service, transactions that say what follows their commit.

`queries.py` of a service holds the statements, as `sql(...)`; this module runs them. Foreign errors leave it only as
`Transient` (the database is away, busy, or asks to try again), so loops and doors decide by kind. The two hottest
statements of the product go through `Database.hot`, which skips SQLAlchemy's execution but not its pool.
"""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared_clients.errors import Permanent, Transient

AGAIN = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    OSError,
    TimeoutError,
)
"""What a server that is restarting, full, overloaded or deadlocked answers: the same statement may succeed later."""

NEVER = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
"""What a server says of values that it will never take: the same statement fails again."""

sql = text


class UniqueViolation(Exception):  # noqa: N818 - Postgres' own word
    """A row with that key exists; the constraint's name is the message."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the driver and SQLAlchemy raise into this module's errors."""
    try:
        yield
    except PoolTimeoutError as error:
        raise Transient("no database connection became free in time") from error
    except DBAPIError as error:
        cause = getattr(error.orig, "__cause__", None) or error.orig
        if isinstance(cause, asyncpg.UniqueViolationError):
            raise UniqueViolation(cause.constraint_name) from error
        if error.connection_invalidated or isinstance(cause, AGAIN):
            raise Transient(f"the database does not answer: {type(cause).__name__}") from error
        if isinstance(cause, NEVER):
            raise Permanent(f"the database refuses what it was given: {type(cause).__name__}") from error
        raise
    except asyncpg.UniqueViolationError as error:
        raise UniqueViolation(error.constraint_name) from error
    except NEVER as error:
        raise Permanent(f"the database refuses what it was given: {type(error).__name__}") from error
    except AGAIN as error:
        raise Transient(f"the database does not answer: {type(error).__name__}") from error


class Tx:
    """One transaction (or, from `Database.reading`, one connection that commits each statement)."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._after_commit: list[Callable[[], None]] = []
        self._after_rollback: list[Callable[[], None]] = []

    async def rows(self, statement: TextClause, **values: object) -> Sequence[RowMapping]:
        """Run a statement and return all its rows."""
        return (await self._connection.execute(statement, values)).mappings().all()

    async def row(self, statement: TextClause, **values: object) -> RowMapping | None:
        """Run a statement and return its only row, or None where there is none."""
        return (await self._connection.execute(statement, values)).mappings().one_or_none()

    async def run(self, statement: TextClause, **values: object) -> int:
        """Run a statement and return how many rows it changed."""
        return (await self._connection.execute(statement, values)).rowcount

    def after_commit(self, follow: Callable[[], None]) -> None:
        """Call `follow` once the transaction is durable, and never when it is not. It must not raise or wait."""
        self._after_commit.append(follow)

    def after_rollback(self, undo: Callable[[], None]) -> None:
        """Call `undo` when the transaction came to nothing. It must not raise or wait."""
        self._after_rollback.append(undo)

    def ended(self, *, committed: bool) -> None:
        for follow in self._after_commit if committed else self._after_rollback:
            follow()


class Database:
    """One service's schema in Postgres.

    Args:
        engine: its pool; every connection has the schema as its only search path.
        schema: the schema's name.
    """

    def __init__(self, engine: AsyncEngine, schema: str) -> None:
        self._engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self.schema = schema

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Tx]:
        """Open a transaction; it commits when the block ends and rolls back when it raises.

        Raises:
            Transient: the database is away or asks to try again. Where it went away during the commit itself, nobody
                knows whether it is durable; then the caller's deterministic keys settle it.
            Permanent: it refuses a value, and always will.
            UniqueViolation: a row with that key exists.
        """
        with translated():
            connection = await self._engine.connect()
            tx = Tx(connection)
            committed = False
            try:
                async with connection.begin():
                    yield tx
                committed = True
            finally:
                try:
                    await connection.close()
                finally:
                    tx.ended(committed=committed)

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[Tx]:
        """Open a connection on which every statement stands alone: for reads and single-statement writes."""
        with translated():
            async with self._autocommit.connect() as connection:
                yield Tx(connection)

    async def hot(self, statement: str, *values: object) -> Mapping[str, Any] | None:
        """Run one single-statement write or read on the driver itself, and return its only row.

        Args:
            statement: SQL with $1, $2, …; prepared once per connection.
            values: its parameters, as asyncpg takes them.

        Raises:
            Transient: as `transaction` does.
            UniqueViolation: a row with that key exists.
        """
        with translated():
            connection = await self._engine.raw_connection()
            try:
                driver = connection.driver_connection
                assert driver is not None
                found: Mapping[str, Any] | None = await driver.fetchrow(statement, *values)
            except BaseException as error:
                if not isinstance(error, asyncpg.UniqueViolationError):
                    connection.invalidate()
                raise
            finally:
                connection.close()
            return found

    async def ping(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            Transient: there is none.
        """
        async with self.reading() as tx:
            await tx.run(sql("SELECT 1"))


@asynccontextmanager
async def open_database(url: str, schema: str, *, pool_size: int = 8) -> AsyncGenerator[Database]:
    """Open a service's schema.

    Args:
        url: `postgresql://…`; connections are made when they are needed.
        schema: the service's schema.
        pool_size: connections at most; a caller waits 2 s for one.
    """
    engine = create_async_engine(
        driver_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=2,
        pool_use_lifo=True,
        hide_parameters=True,  # values are people's words: no error may quote them into a log or a dead letter
        connect_args={
            "timeout": 5,
            "command_timeout": 10,
            "server_settings": {
                "search_path": schema,
                "application_name": f"flotilla-{schema}",
                "statement_timeout": "5000",
                "idle_in_transaction_session_timeout": "10000",
                "jit": "off",
            },
        },
    )
    try:
        yield Database(engine, schema)
    finally:
        await engine.dispose()


def driver_url(url: str) -> str:
    """Return the URL as SQLAlchemy takes it.

    Raises:
        ValueError: it is not of the form `postgresql://…`.
    """
    scheme, separator, rest = url.partition("://")
    if separator == "" or scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        msg = f"expected a database URL of the form postgresql://…, and got one that begins with {scheme[:20]!r}"
        raise ValueError(msg)
    return f"postgresql+asyncpg://{rest}"
