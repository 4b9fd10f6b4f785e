"""Schema migrations, in a module that serving processes do not import, because importing Alembic takes a second."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from shared_clients.postgres import driver_url, sql, translated_errors

MIGRATIONS: Final = Path(__file__).parent / "migrations"


async def migrate(url: str, schema: str, versions: Path) -> None:
    """Migrate a schema: first the tables of durable work, then the service's own.

    Several replicas may migrate at once: an advisory lock makes them wait for each other. Within a process, calls must
    follow one another, because Alembic keeps its context in module globals.

    Args:
        url: a login that may create schemas and tables.
        schema: the service's schema, which is created where it is missing.
        versions: the folder of the service's Alembic revisions.
    """
    engine = create_async_engine(driver_url(url), max_overflow=0)
    try:
        with translated_errors():
            async with engine.begin() as connection:
                await connection.execute(sql("SELECT pg_advisory_xact_lock(hashtext(:s))"), {"s": f"migrate:{schema}"})
                await connection.execute(sql(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
                await connection.execute(sql(f'SET LOCAL search_path TO "{schema}"'))
                await connection.run_sync(_upgrade, schema, versions)
    finally:
        await engine.dispose()


async def missing_revisions(url: str, schema: str, versions: Path) -> tuple[str, ...]:
    """Return the newest revisions that a schema does not have; none where it is up to date.

    The arguments are those of `migrate`; the login needs no more than to read.
    """
    engine = create_async_engine(driver_url(url), max_overflow=0)
    try:
        with translated_errors():
            async with engine.connect() as connection:
                return await connection.run_sync(_missing, schema, versions)
    finally:
        await engine.dispose()


def _missing(connection: Connection, schema: str, versions: Path) -> tuple[str, ...]:
    newest = ScriptDirectory.from_config(_configuration(versions)).get_heads()
    context = MigrationContext.configure(connection, opts={"version_table_schema": schema})
    return tuple(sorted(set(newest) - set(context.get_current_heads())))


def _upgrade(connection: Connection, schema: str, versions: Path) -> None:
    config = _configuration(versions)
    config.attributes.update(connection=connection, schema=schema)
    command.upgrade(config, "heads")


def _configuration(versions: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", f"{MIGRATIONS / 'versions'}\n{versions}")
    return config
