"""`flotilla audit`: on a fleet that runs, on its database when it is stopped, and after somebody has tampered with it.

Faked: nothing. The fleet is `flotilla up`, on a loop of its own beside the command.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import httpx
import pytest

from api_gateway.app import SCHEMA
from api_gateway.usecases.sign_in import make_code
from command_line.commands import main
from durable_work.audit.sealing import Sealer
from fleet.anchoring import open_schemas
from fleet.embedding import embedded_postgres
from fleet.migrate import migrate_all
from local_backends.embedded import EmbeddedPostgres
from shared_clients.identity import generate_key, private_pem
from shared_clients.postgres import open_database
from tests.fleets import Background, Fleet, one_process
from tests.simulators.asking import somebody
from tests.simulators.performing import AGENT, HEAD
from tests.simulators.rows import row, rows, run

SLOW = HEAD + "\nspec:\n  default: {text: one two, fault: {kind: stall, after: 1}}\n"


@dataclass(frozen=True, slots=True)
class Said:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        """Return what was printed, among the log lines of the fleet that runs in this process too."""
        return json.JSONDecoder().raw_decode(self.out, self.out.index("{\n"))[0]


type Flotilla = Callable[..., Said]


@pytest.fixture
def flotilla(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Flotilla:
    """Give a function that runs `flotilla audit …` with this test's home."""
    monkeypatch.setenv("FLOTILLA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")

    def run_it(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["flotilla", "audit", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Said(int(ended.value.code or 0), printed.out, printed.err)

    return run_it


def configs(folder: Path) -> Path:
    for name, text in {"agents/assistant-v1.yaml": AGENT, "scripts/test.yaml": SLOW}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


async def use(fleet: Fleet) -> tuple[str, str]:
    """Do a little of everything that goes on record; return the session and the request."""
    headers = {"Authorization": f"Bearer {fleet.key}"}
    async with httpx.AsyncClient(base_url=fleet.urls[0], timeout=30) as client:
        assert (await client.get("/auth/me", headers={"Authorization": "Bearer wrong"})).status_code == 401
        session: str = (await client.post("/api/v1/sessions", json={}, headers=headers)).json()["session_id"]
        asked = {"content": "Hello", "session_id": session}
        request: str = (await client.post("/api/v1/requests", json=asked, headers=headers)).json()["request_id"]
        assert (await client.delete(f"/api/v1/requests/{request}", headers=headers)).status_code == 202
        assert (await client.delete(f"/api/v1/sessions/{session}", headers=headers)).status_code == 204
    return session, request


async def recorded(url: str) -> dict[str, list[tuple[str, str]]]:
    """Return actions and subjects of every schema's sealed entries, once all are sealed."""
    found = {}
    async with open_schemas(url) as schemas:
        async with asyncio.timeout(30):
            for database in schemas.values():
                refused = database.schema == SCHEMA
                while await row(database, LEFT, least=int(refused)) != {"left": 0}:  # noqa: ASYNC110 - another's table
                    await asyncio.sleep(0.1)
        for name, database in schemas.items():
            told = "SELECT action, subject FROM audit_seals s JOIN audit_entries e ON e.id = s.entry_id ORDER BY number"
            found[name] = [(one["action"], one["subject"]) for one in await rows(database, told)]
    return found


LEFT = """
    SELECT (SELECT count(*) FROM audit_waiting) + greatest(:least - (SELECT count(*) FROM audit_seals), 0) AS left
"""


async def tamper(folder: Path) -> None:
    """Change a row of the gateway's log, as a superuser."""
    async with embedded_postgres(folder) as url, open_database(url, SCHEMA) as database:
        await run(database, "ALTER TABLE audit_entries DISABLE TRIGGER ALL")
        assert await run(database, "UPDATE audit_entries SET outcome = 'done'") == 1


def test_what_people_do_is_on_record_and_whoever_changes_the_record_is_found(
    background: Background, tmp_path: Path, flotilla: Flotilla
) -> None:
    postgres = tmp_path / "home" / "postgres"
    (tmp_path / "home").mkdir(mode=0o700)
    running = AsyncExitStack()
    opening = running.enter_async_context(one_process(tmp_path / "home", configs(tmp_path / "configs")))
    session, request = background.run(use(background.run(opening)))
    found = background.run(recorded(EmbeddedPostgres(postgres).url()))
    try:
        assert found == {
            "request_manager": [("request.cancel_asked", request)],
            "agent_service": [("session.created", session), ("session.deleted", session)],
            "api_gateway": [("identity.refused", "GET /auth/me")],
        }
        live = flotilla("verify", "--json")
        assert (live.status, live.json()["ok"]) == (0, True), live
        sealed = {name: len(entries) for name, entries in found.items()}
        assert {one["chain"]: one["sealed"] for one in live.json()["chains"]} == sealed
    finally:
        background.run(running.aclose())

    stopped = flotilla("verify")
    assert (stopped.status, stopped.out.count("good")) == (0, len(found)), stopped.err

    background.run(tamper(postgres))
    tampered = flotilla("verify", "--json")
    assert (tampered.status, tampered.json()["ok"]) == (1, False)
    chains = {one["chain"]: one for one in tampered.json()["chains"]}
    assert {name: chain["anchored"] for name, chain in chains.items()} == sealed
    [fault] = chains["api_gateway"]["faults"]
    assert (fault["number"], "was changed" in fault["what"]) == (1, True)
    assert "api_gateway, number 1: the entry " in flotilla("verify").out


def test_a_job_may_be_the_witness_and_retired_keys_are_named(
    background: Background, tmp_path: Path, flotilla: Flotilla, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write() -> None:
        async with open_database(url, SCHEMA) as database:
            await make_code(database, somebody())
            await run(database, "UPDATE audit_sealer SET expires_at = '-infinity'")
            assert await Sealer(database).seal() == 1

    running = AsyncExitStack()
    url = background.run(running.enter_async_context(embedded_postgres(tmp_path / "postgres")))
    background.run(migrate_all(url))
    monkeypatch.setenv("FLOTILLA_DATABASE_URL", url)
    monkeypatch.setenv("FLOTILLA_AUDIT_ANCHORS", str(tmp_path / "elsewhere"))
    keys = [tmp_path / name for name in ("first.pem", "second.pem")]
    try:
        for number, key in enumerate(keys, start=1):
            key.write_text(private_pem(generate_key()))
            monkeypatch.setenv("FLOTILLA_AUDIT_KEY", str(key))
            background.run(write())
            if number > 1:
                assert "name the old one in FLOTILLA_AUDIT_PREVIOUS_KEY" in flotilla("anchor").err
                monkeypatch.setenv("FLOTILLA_AUDIT_PREVIOUS_KEY", str(keys[0]))
            assert f"anchored: api_gateway {number}" in flotilla("anchor").out
        assert "nothing new" in flotilla("anchor").out
        background.run(write())
        until_anchored(tmp_path / "elsewhere" / f"{SCHEMA}.jsonl", 3, then=lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert flotilla("anchor", "--stay").status == 0
        assert len((tmp_path / "elsewhere" / f"{SCHEMA}.jsonl").read_text().splitlines()) == 3
        alone = flotilla("verify")
        assert (alone.status, "which is not among the given public keys" in alone.out) == (1, True), alone.err
        both = flotilla("verify", *(word for key in keys for word in ("--key", str(key))))
        assert both.status == 0, both.err
    finally:
        background.run(running.aclose())


def until_anchored(path: Path, lines: int, *, then: Callable[[], None]) -> None:
    """Do something, from another thread, once a file of anchors is as long."""

    def watch() -> None:
        until = monotonic() + 60
        while len(path.read_text().splitlines()) < lines and monotonic() < until:
            sleep(0.05)
        then()

    Thread(target=watch, daemon=True).start()


def test_a_key_that_is_none_is_said_in_one_line(tmp_path: Path, flotilla: Flotilla) -> None:
    (tmp_path / "key.pem").write_text("no key")
    said = flotilla("verify", "--key", str(tmp_path / "key.pem"))
    assert said.status == 1
    assert len(said.err.strip().splitlines()) == 1
    assert "expected Ed25519 keys in PEM form" in said.err
