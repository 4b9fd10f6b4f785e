"""`flotilla dead-letters` as an operator uses it, on a fleet in one process whose agent-service has a real fault."""

import asyncio
import json
import logging
import re
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
import structlog

from command_line.commands import main
from fleet.migrate import migrate_all
from shared_clients.bus.port import Message
from shared_models.catalog import REQUEST_CREATED
from tests.simulators.house import DEV_KEY, House, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module", autouse=True)
def silent_fleet() -> Iterator[None]:
    """Keep the fleet's log, which is this process's too, out of what the commands print."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(new_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[House]:
    url = new_database()
    await asyncio.to_thread(lambda: asyncio.run(migrate_all(url)))
    async with open_house(url, tmp_path_factory.mktemp("agent-configs")) as house:
        yield house


@dataclass(frozen=True, slots=True)
class Terminal:
    """The command line of somebody who operates the house; each command runs in a thread, beside the fleet."""

    house: House
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    async def __call__(self, *words: str) -> tuple[int, str, str]:
        """Run `flotilla dead-letters`, and return its exit status and what it wrote to stdout and stderr."""
        self.monkeypatch.setattr(sys, "argv", ["flotilla", "dead-letters", *words, "--server", self.house.url])
        status = await asyncio.to_thread(self._main)
        printed = self.capsys.readouterr()
        assert "Traceback" not in printed.err
        return status, printed.out, printed.err

    async def json(self, *words: str) -> dict[str, list[dict[str, str]]]:
        status, out, _ = await self(*words, "--json")
        assert status == 0
        found: dict[str, list[dict[str, str]]] = json.loads(out)
        return found

    def _main(self) -> int:
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    async def sql(self, statement: str) -> None:
        connection = await asyncpg.connect(self.house.where["database_url"].get_secret_value().replace("+asyncpg", ""))
        await connection.execute(statement)
        await connection.close()

    async def ask_poison(self) -> str:
        """Ask what agent-service's table refuses, and return the id of the request that failed of it."""
        await self.sql("ALTER TABLE agent_service.runs ADD CONSTRAINT none CHECK (content <> 'poison') NOT VALID")
        async with self.house.client() as client:
            answer = await client.post("/api/v1/requests", json={"content": "poison"}, headers={"Prefer": "wait=10"})
        await self.sql("ALTER TABLE agent_service.runs DROP CONSTRAINT none")
        assert answer.json()["status"] == "failed"
        return str(answer.json()["request_id"])


@pytest_asyncio.fixture(loop_scope="module")
async def flotilla(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncGenerator[Terminal]:
    monkeypatch.setenv("FLOTILLA_AUTH_DEV_KEY", DEV_KEY)
    monkeypatch.setenv("FLOTILLA_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "250")
    terminal = Terminal(house, monkeypatch, capsys)
    yield terminal
    await terminal.sql("DELETE FROM agent_service.inbox WHERE state <> 'done'")


async def test_list_is_a_table_for_people_and_json_for_programs(flotilla: Terminal) -> None:
    status, out, err = await flotilla("list")
    assert (status, out, err) == (0, "", "no events are dead\n")
    request = await flotilla.ask_poison()
    status, out, _ = await flotilla("list")
    head, line = out.strip().splitlines()
    assert head.split() == ["letter", "type", "since", "tries", "why"]
    assert status == 0
    [letter] = (await flotilla.json("list"))["letters"]
    assert letter["correlation_id"] == request
    for shown in (letter["id"], REQUEST_CREATED.name, "CheckViolation"):
        assert shown in line
    assert await flotilla.json("list", "--service", "request-manager") == {"letters": []}
    assert await flotilla.json("list", "--type", "flotilla.other.v1") == {"letters": []}
    assert await flotilla.json("list", "--since", "2999-01-01T00:00:00Z") == {"letters": []}
    assert await flotilla.json("list", "--parked") == {"letters": []}


async def test_page_tells_where_the_next_begins(flotilla: Terminal) -> None:
    for _ in range(3):
        await flotilla.ask_poison()
    _, out, err = await flotilla("list", "--limit", "2")
    assert len(out.strip().splitlines()) == 3
    match = re.search(r"--before (\S+)", err)
    assert match is not None
    assert len((await flotilla.json("list", "--before", match[1]))["letters"]) == 1


async def test_show_has_the_bytes_only_where_they_are_asked_for(flotilla: Terminal) -> None:
    await flotilla.ask_poison()
    [letter] = (await flotilla.json("list"))["letters"]
    status, out, _ = await flotilla("show", letter["id"])
    assert status == 0
    assert letter["correlation_id"] in out
    assert "poison" not in out
    _, out, _ = await flotilla("show", letter["id"], "--content")
    assert '"content": "poison"' in out
    assert re.search(rf"ce-correlationid +{letter['correlation_id']}", out)


async def test_bytes_that_a_stranger_wrote_do_not_reach_the_terminal_as_commands(flotilla: Terminal) -> None:
    hostile = Message(REQUEST_CREATED.topic, "k", {"id": "x", "type": "[red]\x1b[2J"}, b"\x1b]0;owned\x07 \xff", "test")
    await flotilla.house.bus.publish(hostile)
    [letter] = (await flotilla.json("list"))["letters"]
    for words in (("list",), ("show", letter["id"], "--content")):
        status, out, _ = await flotilla(*words)
        assert status == 0
        assert "[red]" in out
        assert not {character for character in out if not character.isprintable()} - {"\n"}


async def test_replay_names_the_new_request_and_twice_is_the_same(flotilla: Terminal) -> None:
    old = await flotilla.ask_poison()
    [letter] = (await flotilla.json("list"))["letters"]
    status, out, err = await flotilla("replay", letter["id"])
    assert (status, err) == (0, "")
    [new] = re.findall(r"the dead letter is now the new request (\S+)\n", out)
    again = await flotilla.json("replay", letter["id"])
    assert again == {"id": letter["id"], "outcome": "replayed", "request_id": new}
    async with flotilla.house.client() as client:
        view = (await client.get(f"/api/v1/requests/{new}?wait=10")).json()
    assert (view["status"], view["retry_of"]) == ("completed", old)
    status, _, err = await flotilla("discard", letter["id"], "--reason", "too late")
    assert status == 1
    assert re.search(r"409 This letter is not dead any more: The letter was replayed at", err)


async def test_replay_all_takes_every_batch_and_names_what_it_cannot(
    flotilla: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await flotilla.ask_poison()
    monkeypatch.setattr("command_line.dead_letters.MOST", 2)
    assert len((await flotilla.json("replay-all", "--since", "2999-01-01T00:00:00Z"))["requests"]) == 0
    status, out, _ = await flotilla("replay-all", "--service", "agent-service")
    assert (status, out) == (0, "replayed: 3, of which new requests: 3\n")
    await flotilla.house.bus.publish(Message(REQUEST_CREATED.topic, "k", {"id": "y"}, b"{", "test"))
    [letter] = (await flotilla.json("list"))["letters"]
    status, out, err = await flotilla("replay-all")
    assert status == 1
    assert out.strip() == "replayed: 0, of which new requests: 0"
    assert f"{letter['id']}: The event has missing or malformed attributes" in err
    status, out, _ = await flotilla("replay-all", "--json")
    assert (status, json.loads(out)["refused"][0]["id"]) == (1, letter["id"])


async def test_discard_asks_for_a_reason(flotilla: Terminal) -> None:
    await flotilla.ask_poison()
    [letter] = (await flotilla.json("list"))["letters"]
    status, _, err = await flotilla("discard", letter["id"])
    assert status == 2
    assert "--reason" in err
    status, _, err = await flotilla("discard", letter["id"], "--reason", " ")
    assert status == 2
    assert "reason" in err
    assert await flotilla("discard", letter["id"], "--reason", "a test") == (0, "the dead letter is discarded\n", "")
    assert await flotilla.json("list") == {"letters": []}


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("show", "nonsense"), 1, "There is no dead letter nonsense"),
        (("replay", "../requests"), 1, "404|There is no"),
        (("list", "--service", "helpdesk"), 1, "has no dead letters. Expected one of agent-service"),
        (("list", "--service", "No Service"), 2, "service"),
        (("list", "--since", "yesterday"), 2, "expected a time with its zone"),
        (("list", "--before", "nonsense"), 2, "before: .*expected the `next`"),
        (("list", "--limit", "0"), 2, "limit"),
    ],
)
async def test_what_is_wrong_is_said_with_an_exit_status(
    flotilla: Terminal, *, words: tuple[str, ...], status: int, told: str
) -> None:
    ended, out, err = await flotilla(*words)
    assert (ended, out) == (status, ""), err
    assert re.search(told, " ".join(err.split())), err
