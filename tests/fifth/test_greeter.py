"""A fifth service needs few lines of its own: what every service has works in it, on each transport of the bus."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from shared_clients.errors import Permanent, Transient, Unknown
from shared_models.ids import new_id
from tests.fifth.conftest import Fleet, asked
from tests.fifth.greeter.catalogue import FAILED, SENT, GreetingEnded
from tests.simulators.calling import Caller
from tests.simulators.rows import rows

MOST_LINES = 120
LETTERS = "/internal/dead-letters"

type AsOperator = Callable[[FastAPI], Caller]


async def listed(call: Caller, count: int) -> list[dict[str, str]]:
    """Return the dead letters when there are so many: events of other keys may still be on their way."""
    async with asyncio.timeout(30):
        while True:
            letters: list[dict[str, str]] = (await call("POST", f"{LETTERS}/list", json={"limit": 10})).json()[
                "letters"
            ]
            if len(letters) >= count:
                return letters
            await asyncio.sleep(0.05)


def test_it_has_few_lines_of_its_own() -> None:
    files = sorted((Path(__file__).parent / "greeter").rglob("*.py"))
    lines = sum(len(file.read_text().splitlines()) for file in files)
    print(f"the fifth service: {lines} lines in {len(files)} files")
    assert len(files) >= 4
    assert lines <= MOST_LINES


async def test_event_becomes_one_job_and_one_event_however_often_it_comes(fleet: Fleet) -> None:
    once, twice = asked("Ada"), asked("Zoë")
    async with fleet.opening():
        await fleet.ask(twice, once, twice)
        heard = await fleet.hear_all(twice, once)
        await fleet.ask(twice, last := asked("Last"))
        assert (await fleet.hear(last)).attributes["type"] == SENT.name
    assert dict(fleet.outside.calls) == {"Ada": 1, "Zoë": 1, "Last": 1}
    assert GreetingEnded.model_validate_json(heard[-1].data) == GreetingEnded(outcome="Hello, Ada!", tries=1)
    assert heard[-1].attributes["source"] == "/flotilla/greeter"
    assert "correlationid" not in heard[-1].attributes
    kept = await rows(fleet.database, "SELECT state, count(*) AS n FROM inbox GROUP BY state")
    assert kept == [{"state": "done", "n": 3}]


async def test_failure_that_may_pass_is_tried_again_and_the_event_says_how_often(fleet: Fleet) -> None:
    fleet.outside.faults = [Transient("down"), Unknown("no answer")]
    async with fleet.opening():
        await fleet.ask(greeting := asked("Ada"))
        sent = GreetingEnded.model_validate_json((await fleet.hear(greeting)).data)
    assert sent == GreetingEnded(outcome="Hello, Ada!", tries=3)
    assert fleet.outside.calls["Ada"] == 3


async def test_failure_that_does_not_pass_is_an_event_after_all_tries_or_at_once(fleet: Fleet) -> None:
    async with fleet.opening():
        fleet.outside.faults = [Transient("still down")] * 4
        await fleet.ask(greeting := asked("Ada"))
        given_up = await fleet.hear(greeting)
        fleet.outside.faults = [Permanent("no such person")]
        await fleet.ask(greeting := asked("Nobody"))
        refused = await fleet.hear(greeting)
    assert given_up.attributes["type"] == refused.attributes["type"] == FAILED.name
    assert GreetingEnded.model_validate_json(given_up.data) == GreetingEnded(outcome="still down", tries=4)
    assert GreetingEnded.model_validate_json(refused.data) == GreetingEnded(outcome="no such person", tries=1)
    ended = await rows(fleet.database, "SELECT outcome, ready_at, due_at, worker FROM greetings ORDER BY outcome")
    assert [tuple(row.values()) for row in ended] == [
        ("no such person", None, None, None),
        ("still down", None, None, None),
    ]


async def test_poison_is_a_dead_letter_that_an_operator_settles_and_holds_up_nothing(
    fleet: Fleet, operator: AsOperator
) -> None:
    poison = replace(asked("Ada"), data=b'{"name": 7}')
    foreign = asked("Mallory")
    forged = replace(foreign, attributes={**foreign.attributes, "source": "/flotilla/other"})
    other_tenant = asked("Eve", tenant="globex")
    lying = replace(other_tenant, attributes={**other_tenant.attributes, "tenantid": "acme"})
    async with fleet.opening() as app:
        await fleet.ask(poison, forged, lying, greeting := asked("Zoë"))
        assert (await fleet.hear(greeting)).attributes["type"] == SENT.name
        call = operator(app)
        letters = await listed(call, 3)
        assert {letter["state"] for letter in letters} == {"dead"}
        assert {letter["tenant"] for letter in letters} == {"acme", ""}
        [mine] = [letter for letter in letters if letter["tenant"] == "acme"]
        answer = await call("POST", f"{LETTERS}/{mine['id']}/discard", json={"reason": "a test"})
        assert (answer.status_code, answer.json()["outcome"]) == (200, "discarded")
    assert set(fleet.outside.calls) == {"Zoë"}


async def test_job_of_a_service_that_stops_is_done_by_the_next_one(fleet: Fleet) -> None:
    fleet.outside.open.clear()
    async with fleet.opening():
        await fleet.ask(greeting := asked("Ada"))
        async with asyncio.timeout(60):
            await fleet.outside.called.wait()
    assert await rows(fleet.database, "SELECT worker, tries FROM greetings") == [{"worker": None, "tries": 0}]
    fleet.outside.open.set()
    async with fleet.opening():
        sent = GreetingEnded.model_validate_json((await fleet.hear(greeting)).data)
    assert sent.tries == 1
    assert fleet.outside.calls["Ada"] == 2


async def test_it_is_healthy_and_its_work_is_measured(fleet: Fleet) -> None:
    async with (
        fleet.opening() as app,
        AsyncClient(transport=ASGITransport(app), base_url="http://greeter") as client,
    ):
        await fleet.ask(greeting := asked("Ada"))
        await fleet.hear(greeting)
        for probe in ("/livez", "/readyz"):
            assert (await client.get(probe)).status_code == 200
        measured = (await client.get("/metrics")).text
        app.state.draining.set()
        assert (await client.get("/readyz")).status_code == 503
        stranger = await client.post(f"{LETTERS}/list", json={"limit": 1})
        assert stranger.status_code == 401
        assert (await client.get(f"/api/v1/greetings/{new_id()}")).status_code == 404
    for line in (
        'flotilla_jobs_total{outcome="done",table="greetings"}',
        'flotilla_inbox_events_total{consumer="greeter",outcome="done"}',
        f'flotilla_outbox_published_total{{outcome="safe",type="{SENT.name}"}}',
        'flotilla_dead_letters{service="greeter"}',
        'flotilla_lease_renewals_total{outcome="renewed"}',
    ):
        assert line in measured, line
