"""Users, as they are: they ask with a key, ask again when they do not know, read on where a stream broke, and poll.

Each of their attempts is in the history before and after it is made. What they cannot know they do not claim: a call
that broke, timed out or was answered with 5xx is unknown until the same key has settled it.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

import aiohttp
from pydantic_core import to_json

from shared_models.frames import START, Cursor, Frame
from shared_models.requests import TERMINAL, Status
from tests.chaos.history import Entry, History, Kind, Outcome, new
from tests.client import Answer, Client, Request, Seen

FINISH_SECONDS: Final = 120.0
"""After which a user stops waiting; the checker calls that lost."""
PAUSE: Final = 0.1
AWAY: Final = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass
class Kept(Seen):
    """All frames that came, as they came: whether they fit is the checker's business.

    Attributes:
        most: frames of one connection, after which it is left; 0 where it is not.
    """

    most: int = 0

    @property
    def cursor(self) -> Cursor:
        return self.frames[-1].cursor if self.frames else START

    @property
    def ended(self) -> bool:
        return bool(self.frames) and self.frames[-1].terminal

    def take(self, frame: Frame) -> None:
        self.frames.append(frame)


@dataclass(frozen=True, slots=True)
class Question:
    """Something to ask.

    Attributes:
        content: unlike every other.
        expects: the answer, where there is only one that is right.
    """

    content: str
    expects: str | None = None


@dataclass
class User:
    """One of them.

    Args:
        client: of the fleet.
        history: of the scenario.
        chance: seeded.
    """

    client: Client
    history: History
    chance: random.Random
    patience: float = FINISH_SECONDS
    attempts: int = field(default=0, init=False)

    async def ask(self, question: Question, session_id: str = "", url: str | None = None) -> Entry | None:
        """Have a request accepted, asking again under the same key for as long as that is not known."""
        entry = self._new_question(question, session_id)
        request = Request("POST", "/api/v1/requests", {"Idempotency-Key": entry.key}, _body(question, session_id))
        async for _ in self._again():
            self.attempts += 1
            begun = await self.history.begin(entry)
            try:
                ended = _accepted(begun, await self.client.call(request, url))
            except AWAY as error:
                ended = replace(begun, outcome=Outcome.UNKNOWN, said=type(error).__name__)
            await self.history.end(ended)
            if ended.outcome is Outcome.OK:
                return ended
            if ended.outcome is Outcome.FAIL and ended.status != 429:
                return None
        return None

    async def chat(self, question: Question, session_id: str = "") -> Entry | None:
        """Ask by opening a stream, and read it to its end; a break before the headers is settled by the key."""
        entry = self._new_question(question, session_id)
        request = Request("POST", "/chat", {"Idempotency-Key": entry.key}, _body(question, session_id))
        seen = Kept()
        accepted: Entry | None = None
        async for _ in self._again():
            begun = await self.history.begin(entry)
            try:
                async with self.client.stream(request, seen) as stream:
                    accepted = replace(
                        begun,
                        outcome=_outcome(stream.status, 200),
                        status=stream.status,
                        request_id=stream.headers.get("Flotilla-Execution-Id", ""),
                        session_id=stream.headers.get("Flotilla-Session-Id", ""),
                    )
                    await self.history.end(accepted)
                    if accepted.outcome is Outcome.OK:
                        await _read(stream.read(), seen.most)
            except AWAY as error:
                if accepted is None:
                    await self.history.end(replace(begun, outcome=Outcome.UNKNOWN, said=type(error).__name__))
            if accepted is not None and accepted.outcome is Outcome.OK:
                return await self.follow(accepted, seen)
            if accepted is not None and accepted.outcome is Outcome.FAIL and accepted.status != 429:
                return None
            accepted = None
        return None

    async def follow(self, accepted: Entry, seen: Kept | None = None) -> Entry:
        """Read a run's stream to its end, over as many connections as that takes."""
        seen = seen or Kept()
        known = {"request_id": accepted.request_id, "session_id": accepted.session_id}
        begun = await self.history.begin(new(Kind.STREAM, **known))
        said = ""
        async for _ in self._again():
            if seen.ended:
                break
            try:
                async with self.client.stream(Request("GET", f"/chat/{accepted.request_id}"), seen) as stream:
                    said = f"status {stream.status}"
                    if stream.status == 200:
                        await _read(stream.read(), seen.most)
            except AWAY as error:
                said = type(error).__name__
            except AssertionError as error:
                said = str(error)
                break
        frames = tuple((str(frame.cursor), frame.data.decode()) for frame in seen.frames)
        outcome = Outcome.OK if seen.ended else Outcome.UNKNOWN
        await self.history.end(replace(begun, outcome=outcome, frames=frames, said=said))
        return accepted

    async def poll(self, accepted: Entry) -> Status | None:
        """Ask for the end of a request until it is told."""
        begun = await self.history.begin(new(Kind.RESULT, request_id=accepted.request_id))
        said = ""
        async for _ in self._again():
            try:
                answer = await self.client.call(Request("GET", f"/api/v1/requests/{accepted.request_id}/result?wait=5"))
            except AWAY as error:
                said = type(error).__name__
                continue
            said = f"status {answer.status}"
            if answer.status == 200:
                view = answer.json()
                told = (view.get("response") or {}).get("content")
                await self.history.end(replace(begun, outcome=Outcome.OK, state=view["status"], answer=told))
                assert Status(view["status"]) in TERMINAL, view
                return Status(view["status"])
        await self.history.end(replace(begun, outcome=Outcome.UNKNOWN, said=said))
        return None

    async def cancel(self, accepted: Entry) -> None:
        """Ask for a request to be stopped, until that is heard."""
        begun = await self.history.begin(new(Kind.CANCEL, request_id=accepted.request_id))
        said = ""
        async for _ in self._again():
            try:
                answer = await self.client.call(Request("DELETE", f"/api/v1/requests/{accepted.request_id}"))
            except AWAY as error:
                said = type(error).__name__
                continue
            if answer.status == 202:
                await self.history.end(replace(begun, outcome=Outcome.OK, status=202))
                return
            said = f"status {answer.status}"
        await self.history.end(replace(begun, outcome=Outcome.UNKNOWN, said=said))

    def _new_question(self, question: Question, session_id: str) -> Entry:
        key = hashlib.sha256(question.content.encode()).hexdigest()[:32]
        entry = new(Kind.ASK, content=question.content, key=key, session_id=session_id)
        return replace(entry, expects=question.expects)

    async def _again(self) -> AsyncIterator[None]:
        """Take turns, a jittered pause apart, for as long as one has patience."""
        began = time.monotonic()
        while time.monotonic() - began < self.patience:
            yield
            await asyncio.sleep(PAUSE * self.chance.uniform(0.5, 1.5))


async def _read(frames: AsyncIterator[Frame], most: int) -> None:
    async with aclosing(frames) as reading:  # type: ignore[type-var]  # a generator, as `Stream.read` makes it
        came = 0
        async for _ in reading:
            came += 1
            if came == most:
                break


def _body(question: Question, session_id: str) -> bytes:
    return to_json({"content": question.content, **({"session_id": session_id} if session_id else {})})


def _outcome(status: int, expected: int) -> Outcome:
    """Say what a status means: a refusal by 4xx did nothing, and behind a 5xx something may have been done."""
    if status == expected:
        return Outcome.OK
    return Outcome.FAIL if 400 <= status < 500 else Outcome.UNKNOWN


def _accepted(begun: Entry, answer: Answer) -> Entry:
    outcome = _outcome(answer.status, 202)
    if outcome is not Outcome.OK:
        return replace(begun, outcome=outcome, status=answer.status, said=answer.body[:200].decode(errors="replace"))
    told = answer.json()
    return replace(
        begun, outcome=outcome, status=202, request_id=told["request_id"], session_id=told["session_id"], said=""
    )
