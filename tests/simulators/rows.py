"""A look past the queries: what tests ask of tables, and the time that they let pass in them."""

from collections.abc import Mapping
from typing import Any

from shared_clients.postgres import Database, sql


async def rows(database: Database, statement: str, **values: object) -> list[Mapping[str, Any]]:
    async with database.autocommit() as tx:
        return [dict(row) for row in await tx.rows(sql(statement), **values)]


async def row(database: Database, statement: str, **values: object) -> Mapping[str, Any]:
    [only] = await rows(database, statement, **values)
    return only


async def run(database: Database, statement: str, **values: object) -> int:
    async with database.autocommit() as tx:
        return await tx.run(sql(statement), **values)
