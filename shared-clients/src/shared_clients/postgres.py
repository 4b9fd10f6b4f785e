"""Postgres as Flotilla uses it: SQL text, one schema per service, and transactions with callbacks after commit.

A service keeps its statements in its `queries`, as `sql(...)`; this module runs them. It translates the errors of the
driver into `Transient`, `Unknown`, `Permanent` and `UniqueViolation`, so that loops and routes decide by kind. The most
frequent statements use `Database.fetch_row`, which skips SQLAlchemy's execution but not its pool.
"""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import asyncpg
from sqlalchemy import RowMapping, TextClause, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared_clients.errors import Permanent, Transient, Unknown, WrongAddress

RETRYABLE_ERRORS = (
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
"""Errors of a server that restarts, is full, overloaded or deadlocked: the same statement may succeed later."""

LOST_CONNECTION_ERRORS = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    OSError,
    TimeoutError,
)
"""Errors of a connection that broke, or of a server that stopped, before an answer came."""

REFUSED_VALUE_ERRORS = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
"""Errors of values that the server never accepts: the same statement fails again."""

POOLER_ERRORS = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
"""Errors of a prepared statement that the session lacks, or has from another client: a pooler changes sessions."""
POOLER_REMEDY = (
    "a pooler such as PgBouncer gives each transaction another session of the database, so settings and prepared "
    "statements get lost; set pool_mode = session there, or connect to Postgres directly"
)
REFUSED_ERRORS = (*REFUSED_VALUE_ERRORS, *POOLER_ERRORS)

sql = text


class UniqueViolation(Exception):  # noqa: N818 - Postgres' own word
    """A row with that key exists; the message is the name of the constraint."""


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the errors of the driver and of SQLAlchemy into those of this module."""
    try:
        yield
    except PoolTimeoutError as error:
        raise Transient("no database connection became free in time") from error
    except DBAPIError as error:
        cause = getattr(error.orig, "__cause__", None) or error.orig
        if isinstance(cause, asyncpg.UniqueViolationError):
            raise UniqueViolation(cause.constraint_name) from error
        if error.connection_invalidated or isinstance(cause, RETRYABLE_ERRORS):
            raise Transient(f"the database does not answer: {type(cause).__name__}") from error
        if isinstance(cause, REFUSED_ERRORS):
            raise _refused(cause) from error
        raise
    except asyncpg.UniqueViolationError as error:
        raise UniqueViolation(error.constraint_name) from error
    except REFUSED_ERRORS as error:
        raise _refused(error) from error
    except RETRYABLE_ERRORS as error:
        raise Transient(f"the database does not answer: {type(error).__name__}") from error


@contextmanager
def answer_may_be_lost(call: str) -> Iterator[None]:
    """Turn the loss of a connection during `call` into `Unknown`, because the server may have carried the call out."""
    try:
        yield
    except DBAPIError as error:
        cause = getattr(error.orig, "__cause__", None) or error.orig
        if error.connection_invalidated or isinstance(cause, LOST_CONNECTION_ERRORS):
            raise Unknown(f"the database did not answer {call}: {type(cause).__name__}") from error
        raise
    except LOST_CONNECTION_ERRORS as error:
        raise Unknown(f"the database did not answer {call}: {type(error).__name__}") from error


def _refused(error: Exception) -> Permanent:
    pooled = isinstance(error, POOLER_ERRORS)
    refusal = f"the database refuses a statement or one of its values: {type(error).__name__}"
    return Permanent(POOLER_REMEDY if pooled else refusal)


class Tx:
    """One transaction; from `Database.autocommit`, each statement is a transaction of its own."""

    def __init__(self, connection: AsyncConnection, *, commits_each: bool = False) -> None:
        self._connection = connection
        self._commits_each = commits_each
        self._after_commit: list[Callable[[], None]] = []
        self._after_rollback: list[Callable[[], None]] = []

    async def rows(self, statement: TextClause, **values: object) -> Sequence[RowMapping]:
        """Run a statement and return all its rows."""
        return (await self._connection.execute(statement, values)).mappings().all()

    async def row(self, statement: TextClause, **values: object) -> RowMapping | None:
        """Run a statement and return its only row, or None where there is none."""
        return (await self._connection.execute(statement, values)).mappings().one_or_none()

    async def run(self, statement: TextClause, **values: object) -> int:
        """Run a statement and return how many rows it changed.

        Raises:
            Unknown: the statement commits alone, and its answer was lost.
        """
        if not self._commits_each:
            return (await self._connection.execute(statement, values)).rowcount
        with answer_may_be_lost("a statement"):
            return (await self._connection.execute(statement, values)).rowcount

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call back after the transaction is committed, and only then; the callback must not raise or wait."""
        self._after_commit.append(callback)

    def after_rollback(self, callback: Callable[[], None]) -> None:
        """Call back if the transaction was rolled back, or if the answer to its commit was lost.

        The callback must not raise or wait.
        """
        self._after_rollback.append(callback)

    def run_callbacks(self, *, committed: bool) -> None:
        for callback in self._after_commit if committed else self._after_rollback:
            callback()


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
        self._keeps_sessions = False

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Tx]:
        """Open a transaction; it commits when the block ends and rolls back when it raises.

        Raises:
            Transient: the database does not answer or asks for a retry; nothing was committed.
            Unknown: the answer to the commit was lost; the deterministic keys of the caller make a second try safe.
            Permanent: the database refuses a value, and always will.
            UniqueViolation: a row with that key exists.
        """
        with translated_errors():
            connection = await self._engine.connect()
            tx = Tx(connection)
            committed = False
            try:
                begun = await connection.begin()
                try:
                    yield tx
                except BaseException:
                    with suppress(DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                        await begun.rollback()  # if it fails, the connection is lost, and the server rolls back
                    raise
                with answer_may_be_lost("a commit"):
                    await begun.commit()
                committed = True
            finally:
                try:
                    await connection.close()
                finally:
                    tx.run_callbacks(committed=committed)

    @asynccontextmanager
    async def autocommit(self) -> AsyncGenerator[Tx]:
        """Open a connection that commits each statement: for reads, and for writes of one statement.

        Raises:
            Transient: the database does not answer or asks for a retry; a read may always be repeated.
            Unknown: the answer to `Tx.run` was lost.
        """
        with translated_errors():
            async with self._autocommit.connect() as connection:
                yield Tx(connection, commits_each=True)

    async def fetch_row(self, statement: str, *values: object) -> Mapping[str, Any] | None:
        """Run one statement directly on the driver, and return its only row, or None; it is committed at once.

        Args:
            statement: SQL with $1, $2, …; it is prepared once per connection.
            values: its parameters, in the types of asyncpg.

        Raises:
            Transient, Unknown, Permanent, UniqueViolation: as `transaction` does.
        """
        with translated_errors():
            connection = await self._engine.raw_connection()
            try:
                driver = connection.driver_connection
                assert driver is not None
                with answer_may_be_lost("a statement"):
                    row: Mapping[str, Any] | None = await driver.fetchrow(statement, *values)
            except BaseException as error:
                if not isinstance(error, asyncpg.UniqueViolationError):
                    connection.invalidate()
                raise
            finally:
                connection.close()
            return row

    async def ping(self) -> None:
        """Check that the database answers. Until the first success, check also that a connection keeps its session.

        Raises:
            Transient: it does not answer.
            Permanent: a pooler gives a connection another session for each transaction.
        """
        async with self.autocommit() as tx:
            session = await tx.row(_SESSION)
            if self._keeps_sessions:
                return
            async with self.transaction() as other:  # if a pooler has taken the session back, this transaction gets it
                await other.run(_SESSION)
                if session != await tx.row(_SESSION):
                    raise Permanent(POOLER_REMEDY)
            self._keeps_sessions = True


_SESSION = sql("SELECT pg_backend_pid() AS pid, current_setting('search_path') AS search_path")


@asynccontextmanager
async def open_database(url: str, schema: str, *, pool_size: int = 8) -> AsyncGenerator[Database]:
    """Open the schema of a service.

    Args:
        url: `postgresql://…`; connections open when they are needed.
        schema: the service's schema.
        pool_size: connections at most; a caller waits 2 s for one. The first `ping` needs two.
    """
    engine = create_async_engine(
        driver_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=2,
        pool_use_lifo=True,
        hide_parameters=True,  # values hold personal data: no error may quote them into a log or a dead letter
        connect_args={
            "timeout": 5,
            "command_timeout": 10,
            "server_settings": {"application_name": f"flotilla-{schema}"},
        },
    )
    _set_on_connect(engine, schema)
    try:
        yield Database(engine, schema)
    finally:
        await engine.dispose()


def _set_on_connect(engine: AsyncEngine, schema: str) -> None:
    """Set the session's settings on each new connection; PgBouncer refuses connections that send them at the start."""
    quoted = schema.replace('"', '""')
    settings = (
        f'SET search_path TO "{quoted}"; SET statement_timeout TO 5000; '
        "SET idle_in_transaction_session_timeout TO 10000; SET jit TO off"
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _(connection: DBAPIConnection, _: object) -> None:
        connection.run_async(lambda driver: driver.execute(settings))


def driver_url(url: str) -> str:
    """Return the URL in the form that SQLAlchemy expects.

    Raises:
        WrongAddress: it is not of the form `postgresql://…`.
    """
    scheme, separator, rest = url.partition("://")
    if separator == "" or scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        raise WrongAddress("expected a database URL of the form postgresql://…, and this one has another form")
    return f"postgresql+asyncpg://{rest}"
