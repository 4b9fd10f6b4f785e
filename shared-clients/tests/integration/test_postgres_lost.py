"""Lost answers: a connection that breaks while Postgres commits is told as unknown, and nothing else is."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from sqlalchemy import make_url

from shared_clients.errors import Transient, Unknown
from shared_clients.postgres import Database, open_database, sql


class Cable:
    """A TCP proxy in front of Postgres that can swallow an answer and break the connection.

    Faked: nothing of Postgres. `cut_after` names words of a client's message whose answer is lost.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.cut_after: bytes | None = None
        self.cut_before: bytes | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(self._path)
        lost = asyncio.Event()

        async def up() -> None:
            while data := await reader.read(65536):
                if self.cut_before is not None and self.cut_before in data:
                    break
                if self.cut_after is not None and self.cut_after in data:
                    lost.set()
                up_writer.write(data)
                await up_writer.drain()
            up_writer.close()
            writer.close()

        async def down() -> None:
            while data := await up_reader.read(65536):
                if lost.is_set():
                    break
                writer.write(data)
                await writer.drain()
            writer.close()

        await asyncio.gather(up(), down(), return_exceptions=True)


@pytest.fixture
async def cable(new_database: Callable[..., str], durable_template: str) -> AsyncGenerator[tuple[Cable, Database]]:
    url = make_url(new_database(like=durable_template))
    host = url.query.get("host")
    if host is None:
        pytest.fail("these tests need the Postgres of this machine, which listens on a Unix socket")
    cable = Cable(f"{host}/.s.PGSQL.5432")
    server = await asyncio.start_server(cable.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    direct = f"postgresql://{url.username}@127.0.0.1:{port}/{url.database}?ssl=disable"
    async with open_database(direct, "durable", pool_size=2) as database:
        async with database.autocommit() as tx:
            await tx.run(sql("CREATE TABLE notes (note text)"))
        yield cable, database
    server.close()


async def notes(cable: Cable, database: Database) -> int:
    cable.cut_after = cable.cut_before = None
    async with database.autocommit() as tx:
        row = await tx.row(sql("SELECT count(*) AS notes FROM notes"))
    assert row is not None
    return int(row["notes"])


INSERT = sql("INSERT INTO notes VALUES (:note)")


async def in_a_transaction(database: Database, after_the_insert: Callable[[], None]) -> None:
    async with database.transaction() as tx:
        await tx.run(INSERT, note="first")
        after_the_insert()


async def alone(database: Database, *written: str) -> None:
    async with database.autocommit() as tx:
        for note in written:
            await tx.run(INSERT, note=note)


async def read(database: Database) -> None:
    async with database.autocommit() as tx:
        await tx.rows(sql("SELECT note FROM notes"))


async def test_commit_whose_answer_is_lost_is_unknown_and_was_durable(cable: tuple[Cable, Database]) -> None:
    proxy, database = cable
    with pytest.raises(Unknown, match="a commit"):
        await in_a_transaction(database, lambda: setattr(proxy, "cut_after", b"COMMIT"))
    assert await notes(proxy, database) == 1


async def test_commit_that_is_never_sent_is_unknown_and_stored_nothing(cable: tuple[Cable, Database]) -> None:
    proxy, database = cable
    with pytest.raises(Unknown, match="a commit"):
        await in_a_transaction(database, lambda: setattr(proxy, "cut_before", b"COMMIT"))
    assert await notes(proxy, database) == 0


async def test_statement_of_a_transaction_that_breaks_is_transient(cable: tuple[Cable, Database]) -> None:
    proxy, database = cable
    proxy.cut_after = b"first"
    with pytest.raises(Transient):
        await in_a_transaction(database, lambda: None)
    assert await notes(proxy, database) == 0


async def test_write_that_commits_alone_and_loses_its_answer_is_unknown(cable: tuple[Cable, Database]) -> None:
    proxy, database = cable
    proxy.cut_after = b"second"
    with pytest.raises(Unknown, match="a statement"):
        await alone(database, "first", "second")
    assert await notes(proxy, database) == 2


async def test_statement_on_the_driver_that_loses_its_answer_is_unknown(cable: tuple[Cable, Database]) -> None:
    proxy, database = cable
    statement = "INSERT INTO notes VALUES ($1) RETURNING note"
    await database.fetch_row(statement, "first")
    proxy.cut_after = b"second"
    with pytest.raises(Unknown, match="a statement"):
        await database.fetch_row(statement, "second")
    assert await notes(proxy, database) == 2


async def test_read_whose_answer_is_lost_may_be_repeated(cable: tuple[Cable, Database]) -> None:
    proxy, database = cable
    proxy.cut_after = b"SELECT"
    with pytest.raises(Transient):
        await read(database)
