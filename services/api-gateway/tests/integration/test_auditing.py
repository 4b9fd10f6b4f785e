"""The audit log of the gateway: sign-ins, sign-outs, and few entries for any number of refusals."""

import asyncio
from collections.abc import AsyncGenerator, Callable

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
    SELECT credential, person, action, subject, outcome, details
    FROM audit_entries
    WHERE action LIKE :like AND subject LIKE :subject
    ORDER BY id
"""


@pytest_asyncio.fixture(loop_scope="module")
async def database(house: House) -> AsyncGenerator[Database]:
    """The gateway's own database; its loop writes there too, so a test picks its entries by subject."""
    yield house.gateway.database


@pytest_asyncio.fixture(loop_scope="module")
async def quiet_database(new_database: Callable[..., str], template: str) -> AsyncGenerator[Database]:
    """A database that no loop writes into, so that a test may count entries."""
    async with open_database(new_database(like=template), SCHEMA) as database:
        yield database


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def wait_for_entry(database: Database, like: str, subject: str) -> dict[str, object]:
    """Return the newest entry about a subject once the loop has written one."""
    async with asyncio.timeout(20):
        while not (found := await entries(database, like, subject)):  # noqa: ASYNC110 - another loop's rows
            await asyncio.sleep(0.05)
    return found[-1]


async def entries(database: Database, like: str, subject: str = "%") -> list[dict[str, object]]:
    return [dict(one) for one in await rows(database, ENTRIES, like=like, subject=subject)]


async def test_link_sign_in_and_sign_out_are_audited_and_connected(
    house: House, client: httpx.AsyncClient, database: Database
) -> None:
    code = (await client.post("/auth/codes")).json()["code"]
    async with house.client(Origin=house.url) as browser:
        for status in (204, 401):
            assert (await browser.post("/auth/link", json={"code": code})).status_code == status
        for status in (204, 401):
            assert (await browser.post("/auth/logout")).status_code == status
    [*_, made, used, ended] = await entries(database, "sign_in.%")
    assert (made["action"], made["credential"]) == ("sign_in.link_made", "dev-key")
    assert (used["action"], used["subject"]) == ("sign_in.done", made["subject"])
    assert (ended["action"], ended["subject"]) == ("sign_in.ended", used["credential"])
    assert {one["person"] for one in (made, used, ended)} == {"flotilla-dev|developer"}
    assert code not in str([made, used, ended])


async def test_refusal_is_audited_with_its_route_and_nothing_that_the_client_chose(
    house: House, client: httpx.AsyncClient, database: Database
) -> None:
    code = (await client.post("/auth/codes")).json()["code"]
    async with house.client(Authorization="Bearer chosen-by-me") as stranger:
        assert (await stranger.get("/chat/01a1fe6e-e144-7457-9c2f-1d1ddcaa269d?chosen=1")).status_code == 401
        assert (await stranger.get("/auth/link-chosen")).status_code == 404
    async with house.client(Origin=house.url) as browser:
        assert (await browser.post("/auth/link", json={"code": code})).status_code == 204
        foreign = {"Origin": "http://evil.example"}
        assert (await browser.post("/auth/logout", headers=foreign)).status_code == 403
    unknown = await wait_for_entry(database, "identity.refused", "GET /chat/{execution_id}")
    assert (unknown["person"], unknown["outcome"]) == ("unknown", "refused")
    foreign_page = await wait_for_entry(database, "permission.refused", "POST before any route")
    assert foreign_page["outcome"] == "refused"
    assert "chosen" not in str(await rows(database, "SELECT * FROM audit_entries"))


async def test_a_flood_of_refusals_is_a_few_entries_and_a_count(quiet_database: Database) -> None:
    clock = Clock()
    refusals = RefusalLog(clock)
    for _ in range(3):
        for _ in range(1000):
            refusals.add(403, "GET /flooded", somebody())
        await refusals.write(quiet_database)
    assert len(await entries(quiet_database, "permission.refused")) == MAX_WRITTEN
    assert await entries(quiet_database, "refusals.counted") == []
    clock.now = 60.0
    await refusals.write(quiet_database)
    await refusals.write(quiet_database)
    [rest] = await entries(quiet_database, "refusals.counted")
    assert (rest["subject"], rest["details"]) == ("permission.refused", {"count": str(3000 - MAX_WRITTEN)})
    refusals.add(403, "GET /flooded", somebody())
    await refusals.write(quiet_database)
    assert len(await entries(quiet_database, "permission.refused")) == MAX_WRITTEN + 1


async def test_refusals_wait_while_the_database_is_away(quiet_database: Database) -> None:
    refusals = RefusalLog(Clock())
    refusals.add(401, "GET /while-away", None)
    async with open_database("postgresql://nobody@127.0.0.1:1/none", SCHEMA) as away:
        await refusals.write(away)
    assert await entries(quiet_database, "identity.refused") == []
    await refusals.write(quiet_database)
    await refusals.write(quiet_database)
    [entry] = await entries(quiet_database, "identity.refused")
    assert entry["subject"] == "GET /while-away"


async def test_sign_in_code_that_cannot_be_audited_is_not_made(client: httpx.AsyncClient, database: Database) -> None:
    await run(database, "ALTER TABLE audit_waiting RENAME TO audit_waiting_gone")
    try:
        codes = "SELECT code_hash FROM sign_in_codes"
        before = await rows(database, codes)
        assert (await client.post("/auth/codes")).status_code == 500
        assert [one for one in await rows(database, codes) if one not in before] == [], "a loop may delete expired ones"
    finally:
        await run(database, "ALTER TABLE audit_waiting_gone RENAME TO audit_waiting")
