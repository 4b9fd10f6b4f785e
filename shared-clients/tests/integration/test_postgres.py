"""Connections to Postgres: the settings of each session, and no startup parameter that a pooler refuses."""

import asyncio
import struct

import pytest

from shared_clients.errors import Permanent, Transient
from shared_clients.postgres import Database, open_database, sql

ALLOWED = {"user", "database", "client_encoding", "application_name", "DateStyle", "TimeZone"}
"""The startup parameters that PgBouncer takes by itself."""


async def test_every_new_connection_has_the_settings_of_its_service(database: Database) -> None:
    async def settings() -> dict[str, str]:
        names = ("search_path", "statement_timeout", "idle_in_transaction_session_timeout", "jit")
        async with database.transaction() as tx:
            await tx.run(sql("SELECT pg_sleep(0.1)"))  # so that each has a connection of its own
            rows = await tx.rows(
                sql("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)"), names=list(names)
            )
        return {row["name"]: row["setting"] for row in rows}

    expected = {
        "search_path": database.schema,
        "statement_timeout": "5000",
        "idle_in_transaction_session_timeout": "10000",
        "jit": "off",
    }
    assert await asyncio.gather(*(settings() for _ in range(4))) == [expected] * 4


async def failing(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.run(sql("SELECT 1 / 0"))


async def test_a_rollback_keeps_the_settings(database: Database) -> None:
    with pytest.raises(Permanent):
        await failing(database)
    async with database.autocommit() as tx:
        row = await tx.row(sql("SELECT current_setting('search_path') AS path"))
    assert row is not None
    assert row["path"] == database.schema


async def test_no_startup_parameter_is_sent_that_a_pooler_refuses() -> None:
    sent: list[set[str]] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size, code = struct.unpack("!II", await reader.readexactly(8))
        if code == 80877103:  # an SSLRequest
            writer.write(b"N")
            size, _ = struct.unpack("!II", await reader.readexactly(8))
        words = (await reader.readexactly(size - 8)).rstrip(b"\0").split(b"\0")
        sent.append({name.decode() for name in words[::2]})
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_database(f"postgresql://a@127.0.0.1:{port}/b?ssl=disable", "c") as database:
            with pytest.raises(Transient):
                await database.ping()
    assert sent
    assert set.union(*sent) <= ALLOWED


async def test_the_check_for_a_pooler_passes_without_one(database: Database) -> None:
    for _ in range(2):
        await database.ping()
