"""Plays a scenario against a fleet: each step over HTTP, alternating between its gateways, each expectation checked.

Whatever a scenario says, some things have to be so for every answer and stream: errors are problem+json with all their
members; a stream's frames keep AG-UI's order, leave no gap and come once; its end is one terminal frame, and the text
before it is the answer that the end tells.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Final

from pydantic import JsonValue
from pydantic_core import from_json

from shared_models.agents import config_error, parse_document
from shared_models.frames import Frame
from tests.client import PATIENCE, Answer, Client, Request, Seen
from tests.fleets import Fleet
from tests.scenarios.matching import at_pointer, differences, fill, fill_text
from tests.scenarios.scenario import Expected, Scenario, Step, source_of

PAUSE: Final = 0.03
"""Seconds between two tries of a step that may take a while to be as expected."""
_SENDERS: Final[dict[str, dict[str, str | None]]] = {
    "developer": {},
    "nobody": {"Authorization": None},
    "stranger": {"Authorization": "Bearer not-the-key-of-anybody"},
}


class Unexpected(AssertionError):  # noqa: N818 - it is what happened
    """Something is not as the scenario says."""


async def play(file: str, text: str, fleet: Fleet) -> None:
    """Read a scenario and play all its steps.

    Raises:
        ConfigError: naming file, line and column of what cannot be read, or of the step that did not go as expected
            and what came instead.
    """
    scenario = parse_document(file, text, Scenario)
    async with Client(fleet) as client:
        player = _Player(client, {**scenario.texts, "origin": fleet.urls[0]})
        for place, step in scenario.steps.items():
            try:
                async with asyncio.timeout(PATIENCE):
                    await player.take(step)
            except (AssertionError, TimeoutError) as error:
                said = str(error) or f"it was not done after {PATIENCE:g} s"
                raise config_error(file, text, {place: said}) from error


class _Player:
    """One client of the scenario: what it knows, and what it has seen of each run."""

    def __init__(self, client: Client, values: dict[str, JsonValue]) -> None:
        self._client = client
        self._values = values
        self._seen: dict[str, Seen] = {}

    async def take(self, step: Step) -> None:
        if step.call is not None:
            await self._call(step, step.call)
        elif step.stream is not None:
            await self._stream(step, step.stream, None)
        elif step.resume is not None:
            run = fill_text(step.resume, self._values)
            await self._stream(step, f"GET /chat/{run}", self._seen.setdefault(run, Seen()))
        elif step.cut_everywhere is not None:
            await self._cut_everywhere(fill_text(step.cut_everywhere, self._values))

    async def _call(self, step: Step, target: str) -> None:
        deadline = monotonic() + (step.within or 0)
        while True:
            request = self._request(step, target)
            answers = await asyncio.gather(*(self._client.call(request) for _ in range(step.at_once)))
            wrong = [said for answer in answers for said in self._wrong(step.expect, answer)]
            if not wrong:
                break
            if monotonic() > deadline:
                raise Unexpected("; ".join(wrong))
            await asyncio.sleep(PAUSE)
        for name, keep in step.keep.items():
            first, *others = [_kept(keep, answer) for answer in answers]
            if any(other != first for other in others):
                raise Unexpected(f"{name} differs among {step.at_once} calls at once: {first}, {others}")
            self._values[name] = first

    async def _stream(self, step: Step, target: str, seen: Seen | None) -> None:
        request = self._request(step, target)
        fresh: list[Frame] = []
        async with self._client.stream(request, seen) as stream:
            answer = Answer(stream.status, stream.headers, b"", 0)
            if stream.status != (step.expect.status or 200):
                raise Unexpected(f"the status is {stream.status}: {(await stream.rest())[:300]!r}")
            async with aclosing(stream.read()) as frames:
                async for frame in frames:
                    fresh.append(frame)
                    if step.until is not None and not list(differences(self._filled(step.until), _fields(frame))):
                        break
        if wrong := [*self._wrong(step.expect, answer), *self._wrong_stream(step, stream.seen, fresh)]:
            raise Unexpected("; ".join(wrong))
        self._seen[stream.headers["Flotilla-Execution-Id"]] = stream.seen
        for name, keep in step.keep.items():
            self._values[name] = _kept(keep, answer)

    async def _cut_everywhere(self, run: str) -> None:
        whole = await self._read(run, Seen())
        if run in self._seen and self._seen[run].frames != whole[: len(self._seen[run].frames)]:
            raise Unexpected("the stream's bytes are not those that came the first time")
        for place in range(1, len(whole)):
            before = Seen()
            for frame in whole[:place]:
                before.take(frame)
            if await self._read(run, before) != whole:
                raise Unexpected(f"what comes behind {whole[place - 1].cursor} is not the rest of the stream")

    async def _read(self, run: str, seen: Seen) -> list[Frame]:
        async with self._client.stream(Request("GET", f"/chat/{run}"), seen) as stream:
            async for _ in stream.read():
                pass
        if not seen.ended:
            raise Unexpected("the stream ended without a terminal frame")
        return seen.frames

    def _request(self, step: Step, target: str) -> Request:
        method, _, path = fill_text(target, self._values).partition(" ")
        headers: dict[str, str | None] = {**_SENDERS[step.sender]}
        headers |= {name: fill_text(value, self._values) for name, value in step.headers.items()}
        body = None if step.text is None else fill_text(step.text, self._values).encode()
        if step.content is not None:
            body = json.dumps(fill(step.content, self._values)).encode()
        return Request(method, path, headers, body, step.chunked)

    def _filled(self, expected: JsonValue) -> JsonValue:
        return fill(expected, self._values)

    def _wrong(self, expected: Expected, answer: Answer) -> Iterator[str]:
        if expected.status is not None and answer.status != expected.status:
            yield f"the status is {answer.status}, and {expected.status} was expected: {answer.body[:300]!r}"
            return
        headers: dict[str, JsonValue] = {name: answer.headers.get(name) for name in expected.headers}
        yield from differences(self._filled(dict(expected.headers)), headers, "headers")
        if expected.body is not None or answer.status >= 400:
            found = from_json(answer.body)
            yield from differences(self._filled(expected.body or {}), found)
            if answer.status >= 400:
                yield from _wrong_problem(answer, found)
        if expected.empty and answer.body:
            yield f"expected no body, and got {answer.body[:300]!r}"
        if expected.took is not None and not expected.took.least <= answer.seconds <= expected.took.most:
            yield f"it took {answer.seconds:.2f} s, and {expected.took.least} to {expected.took.most} s were expected"

    def _wrong_stream(self, step: Step, seen: Seen, fresh: Sequence[Frame]) -> Iterator[str]:
        if step.until is None and not seen.ended:
            yield "the stream ended without a terminal frame"
        if step.until is not None and (seen.ended or not fresh):
            yield f"no frame was like {step.until} before the end"
        rest = iter(fresh)
        for expected in step.expect.frames:
            if not any(not list(differences(self._filled(expected), _fields(frame))) for frame in rest):
                yield f"no frame like {expected} where it was expected, among {[frame.type for frame in fresh]}"
        if step.expect.answer is not None:
            yield from differences(self._filled(step.expect.answer), seen.answer, "answer")
        if seen.viewer.outcome is not None and seen.viewer.outcome[0] == "RUN_FINISHED":
            told = at_pointer(_fields(seen.frames[-1]), "/result/response/content")
            yield from differences(told, seen.answer, "the text before the end")


def _fields(frame: Frame) -> JsonValue:
    fields: JsonValue = from_json(frame.data)
    return fields


def _wrong_problem(answer: Answer, found: JsonValue) -> Iterator[str]:
    """Check what RFC 9457 and `contracts.md` ask of every error."""
    media = answer.headers.get("Content-Type")
    if media != "application/problem+json":
        yield f"an error is application/problem+json, and this is {media}"
    members: JsonValue = {
        "type": r"re:urn:flotilla:problem:[a-z-]+",
        "title": "re:.+",
        "status": answer.status,
        "detail": "re:.+",
        "instance": "re:/.*",
        "trace_id": "re:[0-9a-f]{32}",
    }
    yield from differences(members, found)


def _kept(keep: str, answer: Answer) -> JsonValue:
    kind, where, pattern = source_of(keep)
    if kind == "header":
        if where not in answer.headers:
            raise Unexpected(f"there is no header {where} to keep")
        value: JsonValue = answer.headers[where]
    else:
        value = at_pointer(from_json(answer.body), where)
    if pattern is None:
        return value
    match = re.search(pattern, str(value))
    if match is None:
        raise Unexpected(f"{where} is {value!r}, in which {pattern!r} is not found")
    return match[1]
