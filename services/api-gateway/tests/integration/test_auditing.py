"""The audit log of the gateway: sign-ins, sign-outs, and few entries for any number of refusals."""

import asyncio
from collections.abc import AsyncGenerator

import httpx
import pytest
import pytest_asyncio

from api_gateway.app import SCHEMA
from api_gateway.refusals import MAX_WRITTEN, RefusalLog
from shared_clients.postgres import Database, open_database
from tests.simulators.asking import somebody
from tests.simulators.house import House
from tests.simulators.rows import rows, run

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENTRIES = """
    SELECT credential, person, action, subject, outcome, details FROM audit_entries WHERE action LIKE :like ORDER BY id
"""


@pytest_asyncio.fixture(loop_scope="module")
async def database(house: House) -> AsyncGenerator[Database]:
    yield house.gateway.database


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def wait_for_entries(database: Database, like: str, at_least: int) -> list[dict[str, object]]:
    """Return the entries once the loop has written so many."""
    async with asyncio.timeout(20):
        while len(found := await rows(database, ENTRIES, like=like)) < at_least:  # noqa: ASYNC110 - another loop's rows
            await asyncio.sleep(0.05)
    return [dict(one) for one in found]


async def test_link_sign_in_and_sign_out_are_audited_and_connected(
    house: House, client: httpx.AsyncClient, database: Database
) -> None:
    code = (await client.post("/auth/codes")).json()["code"]
    async with house.client(Origin=house.url) as browser:
        for status in (204, 401):
            assert (await browser.post("/auth/link", json={"code": code})).status_code == status
        for status in (204, 401):
            assert (await browser.post("/auth/logout")).status_code == status
    made, used, ended = await wait_for_entries(database, "sign_in.%", 3)
    assert (made["action"], made["credential"]) == ("sign_in.link_made", "dev-key")
    assert (used["action"], used["subject"]) == ("sign_in.done", made["subject"])
    assert (ended["action"], ended["subject"]) == ("sign_in.ended", used["credential"])
    assert {one["person"] for one in (made, used, ended)} == {"flotilla-dev|developer"}
    assert code not in str([made, used, ended])


async def test_refusal_is_audited_with_its_route_and_nothing_that_the_client_chose(
    house: House, client: httpx.AsyncClient, database: Database
) -> None:
    code = (await client.post("/auth/codes")).json()["code"]
    before = len(await rows(database, ENTRIES, like="identity.refused"))
    async with house.client(Authorization="Bearer chosen-by-me") as stranger:
        assert (await stranger.get("/chat/01a1fe6e-e144-7457-9c2f-1d1ddcaa269d?chosen=1")).status_code == 401
        assert (await stranger.get("/auth/link-chosen")).status_code == 404
    async with house.client(Origin=house.url) as browser:
        assert (await browser.post("/auth/link", json={"code": code})).status_code == 204
        foreign = {"Origin": "http://evil.example"}
        assert (await browser.post("/auth/logout", headers=foreign)).status_code == 403
    [*_, unknown] = await wait_for_entries(database, "identity.refused", before + 1)
    assert (unknown["subject"], unknown["person"]) == ("GET /chat/{execution_id}", "unknown")
    [foreign_page] = await wait_for_entries(database, "permission.refused", 1)
    assert (foreign_page["subject"], foreign_page["outcome"]) == ("POST before any route", "refused")
    assert "chosen" not in str(await rows(database, "SELECT * FROM audit_entries"))


async def test_a_flood_of_refusals_is_a_few_entries_and_a_count(database: Database) -> None:
    clock = Clock()
    refusals = RefusalLog(clock)
    before = len(await rows(database, ENTRIES, like="permission.refused"))
    for _ in range(3):
        for _ in range(1000):
            refusals.add(403, "GET /flooded", somebody())
        await refusals.write(database)
    found = (await rows(database, ENTRIES, like="permission.refused"))[before:]
    assert len(found) == MAX_WRITTEN
    assert await rows(database, ENTRIES, like="refusals.counted") == []
    clock.now = 60.0
    await refusals.write(database)
    await refusals.write(database)
    [rest] = await rows(database, ENTRIES, like="refusals.counted")
    assert (rest["subject"], rest["details"]) == ("permission.refused", {"count": str(3000 - MAX_WRITTEN)})
    refusals.add(403, "GET /flooded", somebody())
    await refusals.write(database)
    assert len(await rows(database, ENTRIES, like="permission.refused")) == before + MAX_WRITTEN + 1


async def test_refusals_wait_while_the_database_is_away(database: Database) -> None:
    refusals = RefusalLog(Clock())
    refusals.add(401, "GET /while-away", None)
    async with open_database("postgresql://nobody@127.0.0.1:1/none", SCHEMA) as away:
        await refusals.write(away)
    await refusals.write(database)
    await refusals.write(database)
    told = await rows(database, "SELECT 1 AS one FROM audit_entries WHERE subject = 'GET /while-away'")
    assert len(told) == 1


async def test_sign_in_code_that_cannot_be_audited_is_not_made(client: httpx.AsyncClient, database: Database) -> None:
    await run(database, "ALTER TABLE audit_waiting RENAME TO audit_waiting_gone")
    try:
        codes = "SELECT count(*) AS n FROM sign_in_codes"
        [before] = await rows(database, codes)
        assert (await client.post("/auth/codes")).status_code == 500
        assert await rows(database, codes) == [before]
    finally:
        await run(database, "ALTER TABLE audit_waiting_gone RENAME TO audit_waiting")
