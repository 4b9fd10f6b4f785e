"""F23: three times as many people as the fleet has room for: it goes on answering as many as it can, and heals.

Everybody asks, waits for the answer in the same call, and asks again at once; who is refused comes back when told to.
The fleet's room is made small, so that it and not the crowd's own cost is measured; what it can do is
measured before and after with as many people as it has room for: the machine is shared.
"""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from statistics import fmean
from time import monotonic
from typing import Final

from tests.chaos.ground import Shape
from tests.chaos.history import Entry, Kind, Outcome, new
from tests.chaos.registry import Scenario
from tests.chaos.strangers import p99
from tests.chaos.trial import Trial
from tests.chaos.users import AWAY
from tests.client import Answer, Request

ROOM: Final = 8
"""Waiting calls of one gateway."""
GATEWAYS: Final = 2
LIMITS: Final = {"open": ROOM + 1, "in_flight": 4 * ROOM, "receiving": 4 * ROOM, "replicas": GATEWAYS}
GOODPUT: Final = 0.95
JUDGED_GOODPUT: Final = 0.7
"""A fleet that collapses is far below; the machine's own noise is not."""
RECOVERED_SECONDS: Final = 5.0


@dataclass
class Crowd:
    """People who ask as fast as they are let.

    Attributes:
        answers: when each answer came, and how long it took from the call that brought it.
        statuses: of all calls.
    """

    trial: Trial
    answers: list[tuple[float, float]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    without_hint: int = 0

    async def ask_for(self, seconds: float, people: int) -> float:
        """Have people ask for so long, and return how many answers a second came in that time."""
        self.answers.clear()
        until = monotonic() + seconds
        urls = self.trial.ground.fleet.urls
        await asyncio.gather(*(self._person(until, urls[number % len(urls)]) for number in range(people)))
        return sum(at <= until for at, _ in self.answers) / seconds

    async def _person(self, until: float, url: str) -> None:
        while monotonic() < until:
            await self._ask(until, url)

    async def _ask(self, until: float, url: str) -> None:
        """Ask one thing until it is taken; who has no time left goes without."""
        question = self.trial.question(token_ms=5, words=8)
        asked = new(Kind.ASK, content=question.content, key=f"{self.trial.chance.getrandbits(64):016x}")
        headers = {"Idempotency-Key": asked.key, "Prefer": "wait=30"}
        request = Request("POST", "/api/v1/requests", headers, json.dumps({"content": question.content}).encode())
        while monotonic() < until:
            begun = await self.trial.history.begin(replace(asked, expects=question.expects))
            try:
                answer = await self.trial.client.call(request, url)
            except AWAY as error:
                await self.trial.history.end(replace(begun, outcome=Outcome.UNKNOWN, said=type(error).__name__))
                continue
            if await self._taken(begun, answer):
                return
            await asyncio.sleep(self._told_to_wait(answer) * self.trial.chance.uniform(1.0, 1.3))

    async def _taken(self, begun: Entry, answer: Answer) -> bool:
        """Write down what came of a call; tell whether the question is taken."""
        self.statuses[answer.status] += 1
        if answer.status not in {200, 202}:
            said = answer.body[:200].decode(errors="replace")
            await self.trial.history.end(replace(begun, outcome=Outcome.UNKNOWN, status=answer.status, said=said))
            return False
        view = answer.json()
        known = {"request_id": view["request_id"], "session_id": view["session_id"]}
        entry = await self.trial.history.end(replace(begun, outcome=Outcome.OK, status=answer.status, **known))
        if answer.status == 202:
            await self.trial.user().poll(entry)
        else:
            self.answers.append((monotonic(), answer.seconds))
            result = await self.trial.history.begin(new(Kind.RESULT, **known))
            told = (view.get("response") or {}).get("content")
            await self.trial.history.end(replace(result, outcome=Outcome.OK, state=view["status"], answer=told))
        return True

    def _told_to_wait(self, answer: Answer) -> float:
        hint = answer.headers.get("Retry-After", "")
        self.without_hint += not hint.isdigit()
        return float(hint) if hint.isdigit() else 1.0


async def overload(trial: Trial) -> None:
    """As many as there is room for, three times as many, and as many again."""
    calm, storm = (4.0, 10.0) if trial.short else (20.0, 60.0)
    crowd, room = Crowd(trial), ROOM * GATEWAYS
    await crowd.ask_for(2.0, room)  # everything is warm
    before = await crowd.ask_for(calm, room)
    usual = p99([seconds for _, seconds in crowd.answers])
    trial.expect(set(crowd.statuses) == {200}, f"people for whom there is room were told {dict(crowd.statuses)}")
    crowd.statuses.clear()
    during = await crowd.ask_for(storm, 3 * room)
    over = monotonic()
    _judge_refusals(trial, crowd)
    after = await crowd.ask_for(calm, room)
    slow = [at - over for at, seconds in crowd.answers if seconds > 2 * usual]
    trial.measure("as quick as before, after", max(slow, default=0.0), RECOVERED_SECONDS)
    capacity = fmean((before, after))
    trial.notes.append(
        f"{before:.1f} and {after:.1f} answers a second with room for all, {during:.1f} at 3x: "
        f"goodput {during / capacity:.2f}x (goal {GOODPUT:g}x)"
    )
    trial.expect(during >= JUDGED_GOODPUT * capacity, f"goodput {during / capacity:.2f}x; expected {GOODPUT:g}x")


def _judge_refusals(trial: Trial, crowd: Crowd) -> None:
    statuses = dict(sorted(crowd.statuses.items()))
    trial.notes.append(f"at 3x: {statuses} by status; p99 of an answer {p99([s for _, s in crowd.answers]):.2f} s")
    trial.expect(set(statuses) <= {200, 202, 429, 503}, f"overload was told as {statuses}; expected 429 and 503")
    trial.expect(bool(statuses.get(503) or statuses.get(429)), "nobody was refused at 3x")
    trial.expect(crowd.without_hint == 0, f"{crowd.without_hint} refusals without Retry-After")


SCENARIO = Scenario(
    name="F23",
    title="three times the load",
    play=overload,
    shape=Shape(environment=(("FLOTILLA_LIMITS", json.dumps(LIMITS)),)),
)
