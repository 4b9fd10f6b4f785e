"""F11: events that no consumer can take, among those that it can: they block nobody, and none of them vanishes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import uuid4

from aiokafka import AIOKafkaProducer

from shared_models.catalog import REQUEST_CREATED
from shared_models.envelope import MAX_DATA
from tests.chaos.conversations import probe
from tests.chaos.history import Entry
from tests.chaos.registry import Scenario
from tests.chaos.strangers import p99
from tests.chaos.trial import Trial
from tests.client import Request

ROUNDS: Final = 20
GIVE_UP_SECONDS: Final = 60.0
OTHERS: Final = 200
"""Answers to others by which they are compared; too few are asked for in the short form."""
SLOWER: Final = 1.2
"""How much later others may be answered, at the 99th percentile; what is judged allows for a shared machine."""
JUDGED_SLOWER: Final = 2.0
POISON: Final = "is poison"
BUG: Final = f"""
    CREATE FUNCTION agent_service.a_bug() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'a bug that chaos has planted'; END $$;
    CREATE TRIGGER a_bug BEFORE INSERT ON agent_service.runs
        FOR EACH ROW WHEN (NEW.content LIKE '%{POISON}%') EXECUTE FUNCTION agent_service.a_bug()
"""
FIX: Final = "DROP TRIGGER a_bug ON agent_service.runs; DROP FUNCTION agent_service.a_bug()"
HURRY: Final = """
    UPDATE agent_service.inbox SET next_attempt_at = now(), seen_at = seen_at - interval '25 hours'
    WHERE state = 'parked'
"""
"""Lets a day pass for what is parked: what waits for a newer release gives up, what fails has its next try."""
PARKED: Final = "SELECT count(*) FROM agent_service.inbox WHERE state = 'parked'"


async def poison(trial: Trial) -> None:
    """Send events that are malformed, oversized, or of the future, and ask what makes the consumer raise."""
    rounds, others = (1, 0) if trial.short else (ROUNDS, OTHERS)
    async with trial.crowd(4):
        alone = await _answer_p99(trial, others)
        async with _a_bug(trial):
            asked, beside = await asyncio.gather(_poison(trial, rounds), _answer_p99(trial, others))
            await _until_dead(trial)
    if others:
        slower = f"{beside / alone:.2f}x (goal {SLOWER:g}x)"
        trial.notes.append(f"others' answers: p99 {alone:.2f} s, {beside:.2f} s beside poison: {slower}")
        trial.expect(beside <= JUDGED_SLOWER * alone, f"others were answered {slower} as late at the 99th percentile")
    letters = await _letters(trial)
    expected = 4 * rounds
    trial.notes.append(f"{len(letters)} dead letters of {expected} poisonous events; one more type was not for anybody")
    trial.expect(len(letters) == expected, f"{len(letters)} dead letters; expected {expected}, each exactly once")
    trial.expect(all(entry is not None for entry in asked), "a poisonous request was not accepted; it cannot be known")
    await _replay_fixed(trial, letters)
    await _discard(trial)


async def _poison(trial: Trial, rounds: int) -> list[Entry | None]:
    asked = []
    for _ in range(rounds):
        await _send(trial, _malformed(), _oversized(), _unknown_version(), _unknown_type())
        asked.append(await _ask_poison(trial))
    return asked


async def _answer_p99(trial: Trial, count: int) -> float:
    """Return how long others wait for their answers, at the 99th percentile, in seconds."""
    asking = (probe(trial.user(), trial.question(token_ms=0, words=6)) for _ in range(count))
    return p99([await trial.seconds(one) for one in asking] or [0.0])


async def _ask_poison(trial: Trial) -> Entry | None:
    user, question = trial.user(), trial.question()
    return await user.ask(type(question)(f"{question.content} {POISON}"))


@asynccontextmanager
async def _a_bug(trial: Trial) -> AsyncIterator[None]:
    """Have agent-service raise at some requests, until somebody mends it."""
    async with trial.ground.database() as database:
        await database.execute(BUG)
    try:
        yield
    finally:
        async with trial.ground.database() as database:
            await database.execute(FIX)


async def _until_dead(trial: Trial) -> None:
    async def has_given_up() -> bool:
        async with trial.ground.database() as database:
            await database.execute(HURRY)
            await asyncio.sleep(0.5)
            return not await database.fetchval(PARKED)

    await asyncio.sleep(1.0)  # all of it is consumed
    await trial.until("nothing is parked any more", has_given_up, GIVE_UP_SECONDS)


def _headers(**changed: str | None) -> dict[str, str]:
    session, request = str(uuid4()), str(uuid4())
    headers = {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "/flotilla/request-manager",
        "type": REQUEST_CREATED.name,
        "subject": request,
        "time": "2026-01-31T12:00:00Z",
        "partitionkey": session,
        "turn": "1",
        "tenantid": "default",
        "correlationid": request,
        **changed,
    }
    return {name: value for name, value in headers.items() if value is not None}


def _malformed() -> tuple[dict[str, str], bytes]:
    return _headers(tenantid=None, correlationid="not an id"), b"{}"


def _oversized() -> tuple[dict[str, str], bytes]:
    return _headers(), json.dumps({"content": "x" * (MAX_DATA + 1)}).encode()


def _unknown_version() -> tuple[dict[str, str], bytes]:
    return _headers(type=REQUEST_CREATED.name.replace(".v1", ".v9")), b"{}"


def _unknown_type() -> tuple[dict[str, str], bytes]:
    return _headers(type="flotilla.request.dreamt.v1"), b"{}"


async def _send(trial: Trial, *events: tuple[dict[str, str], bytes]) -> None:
    servers = trial.ground.stores["kafka"].url.removeprefix("kafka://")
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        for attributes, data in events:
            headers = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
            headers.append(("content-type", b"application/json"))
            key = attributes["partitionkey"].encode()
            await producer.send_and_wait(REQUEST_CREATED.topic, data, key=key, headers=headers)


async def _letters(trial: Trial) -> list[dict[str, Any]]:
    answer = await trial.client.call(Request("GET", "/api/v1/dead-letters?limit=200"))
    trial.expect(answer.status == 200, f"the dead letters cannot be listed: {answer.status} {answer.body[:200]!r}")
    letters: list[dict[str, Any]] = answer.json().get("letters", [])
    return letters


async def _replay_fixed(trial: Trial, letters: list[dict[str, Any]]) -> None:
    """Replay, twice, what failed for a bug that is mended now: each becomes one new request, which is answered."""
    fixed = [letter for letter in letters if "planted" in letter["reason"]]
    for letter in fixed:
        request = Request("POST", f"/api/v1/dead-letters/{letter['id']}/replay")
        first, again = await trial.client.call(request), await trial.client.call(request)
        trial.expect(first.status == 200, f"a letter cannot be replayed: {first.status} {first.body[:200]!r}")
        trial.expect(again.status in {200, 404, 409}, f"a letter replayed twice: {again.status} {again.body[:200]!r}")
        retried = first.json().get("request_id")
        answer = await trial.client.call(Request("GET", f"/api/v1/requests/{retried}/result?wait=15"))
        trial.expect(answer.status == 200 and answer.json()["status"] == "completed", f"a retry: {answer.body[:200]!r}")
        if again.status == 200:
            trial.expect(again.json().get("request_id") == retried, "a letter that is replayed twice made two requests")
    trial.notes.append(f"{len(fixed)} of them replayed after the fix, twice each, and answered once each")


async def _discard(trial: Trial) -> None:
    for letter in await _letters(trial):
        body = json.dumps({"reason": "made by chaos"}).encode()
        request = Request("POST", f"/api/v1/dead-letters/{letter['id']}/discard", body=body)
        answer = await trial.client.call(request)
        trial.expect(answer.status == 200, f"a letter cannot be discarded: {answer.status} {answer.body[:200]!r}")


SCENARIO = Scenario(
    name="F11",
    title="malformed, oversized and unknown events, and some that make the consumer raise",
    play=poison,
    failures=True,
    short_seconds=120.0,
)
