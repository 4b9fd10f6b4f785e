"""The SQL of every service against the schemas that its migrations make, and the migrations themselves."""

import asyncio
import importlib
import pkgutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, TextClause
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.ext.asyncio import create_async_engine

import durable_work
from durable_work.migrating import MIGRATIONS
from fleet.migrate import SCHEMAS, migrate_all
from request_manager.queries.accepting import ACCEPT
from shared_clients.postgres import sql
from shared_models.services import schemas

CATALOGUE = """
    SELECT 'column' AS kind, table_schema || '.' || table_name || '.' || column_name AS name,
           concat_ws(' ', data_type, is_nullable, column_default) AS what
    FROM information_schema.columns WHERE table_schema = ANY($1)
    UNION ALL SELECT 'index', schemaname || '.' || indexname, indexdef FROM pg_indexes WHERE schemaname = ANY($1)
    UNION ALL SELECT 'constraint', connamespace::regnamespace || '.' || conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace::regnamespace::text = ANY($1)
    ORDER BY 1, 2
"""
"""Everything that migrations make, as rows that compare."""

ONE_MIGRATES = """
import asyncio, sys
from pathlib import Path
from durable_work.migrating import migrate
url, schema, versions = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(migrate(url, schema, Path(versions)))
"""


def modules_of(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if ".migrations" not in found.name and not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def statements_of(package: ModuleType) -> Mapping[str, str]:
    """Return every statement of a package as the driver gets it, by the name it has in its module."""
    compiled = dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy has it untyped
    return {
        f"{module.__name__}.{name}": str(value.compile(dialect=compiled))
        for module in modules_of(package)
        for name, value in vars(module).items()
        if isinstance(value, TextClause)
    }


SHARED = statements_of(durable_work)
STATEMENTS = {
    (schema, name): statement
    for schema, entry in schemas().items()
    for name, statement in {**SHARED, **statements_of(importlib.import_module(entry.package))}.items()
} | {("request_manager", "request_manager.queries.accepting.ACCEPT"): ACCEPT}


@pytest.fixture(scope="module")
def migrated(new_database: Callable[..., str]) -> str:
    """An address of a database with all schemas, which tests only read."""
    url = new_database()
    asyncio.run(migrate_all(url))
    return url


async def connected(url: str) -> asyncpg.Connection:
    return await asyncpg.connect(url.replace("+asyncpg", ""))


async def catalogue(url: str) -> list[tuple[str, str, str]]:
    connection = await connected(url)
    try:
        return [tuple(row) for row in await connection.fetch(CATALOGUE, list(SCHEMAS))]
    finally:
        await connection.close()


async def test_every_statement_fits_the_migrated_schema(migrated: str) -> None:
    connection = await connected(migrated)
    faults = []
    for (schema, name), statement in STATEMENTS.items():
        await connection.execute(f"SET search_path TO {schema}")
        try:
            await connection.prepare(statement)
        except asyncpg.PostgresError as error:
            faults.append(f"{schema}: {name}: {error}")
    await connection.close()
    assert not faults
    assert len(SHARED) >= 15
    assert len(STATEMENTS) > 3 * len(SHARED) + 35, "fewer than there were: are they still where they are looked for?"


async def test_migrating_twice_changes_nothing(new_database: Callable[..., str], migrated: str) -> None:
    url = new_database(like=migrated)
    before = await catalogue(url)
    await migrate_all(url)
    assert await catalogue(url) == before
    assert {name.split(".")[0] for kind, name, _ in before if kind == "column"} == set(SCHEMAS)


async def test_two_processes_that_migrate_at_once_make_what_one_makes(
    new_database: Callable[..., str], migrated: str
) -> None:
    url, schema = new_database(), "agent_service"
    words = (sys.executable, "-c", ONE_MIGRATES, url, schema, str(SCHEMAS[schema]))
    both = [await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE, stderr=PIPE) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    said = await asyncio.gather(*(process.communicate(b"go\n") for process in both))
    assert [process.returncode for process in both] == [0, 0], said
    assert await catalogue(url) == [row for row in await catalogue(migrated) if row[1].startswith(f"{schema}.")]


async def test_what_is_migrated_down_comes_up_the_same(new_database: Callable[..., str], migrated: str) -> None:
    url = new_database(like=migrated)
    before = await catalogue(url)
    engine = create_async_engine(url)
    for schema, versions in SCHEMAS.items():
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", f"{MIGRATIONS / 'versions'}\n{versions}")

        def down(connection: Connection, config: Config = config, schema: str = schema) -> None:
            config.attributes.update(connection=connection, schema=schema)
            command.downgrade(config, "base")

        async with engine.begin() as connection:
            await connection.execute(sql(f'SET LOCAL search_path TO "{schema}"'))
            await connection.run_sync(down)
    await engine.dispose()
    assert await catalogue(url) == [row for row in before if ".alembic_version" in row[1]]
    await migrate_all(url)
    assert await catalogue(url) == before
