"""Ask a running fleet something, and follow the answer as it comes; a stream that is cut is taken up where it was."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import from_json

from shared_clients.errors import Unconfirmed
from shared_clients.outbound import HttpClient
from shared_models.frames import START, Cursor
from shared_models.ids import new_id
from shared_models.requests import NewRequest, RequestView

RESUMES: Final = 30
"""How often in a row a stream that brings nothing new is taken up again, with a pause of a second."""


class Seen(BaseModel):
    """What the command line shows of a frame.

    Attributes:
        type: AG-UI's.
        delta: new text.
        name: of a CUSTOM event.
        value: of a CUSTOM event.
        tool: the name of a tool that is called.
        view: the whole result, on the terminal frame.
    """

    type: str
    delta: str = ""
    name: str = ""
    value: dict[str, object] = {}
    tool: str = ""
    view: RequestView | None = None


@dataclass(frozen=True, slots=True)
class Question:
    content: str
    agent: str | None = None
    session_id: UUID | None = None

    def body(self) -> bytes:
        request = NewRequest(content=self.content, agent=self.agent, session_id=self.session_id)
        return request.model_dump_json(exclude_none=True).encode()


async def ask(server: HttpClient, question: Question) -> AsyncGenerator[Seen]:
    """Yield what comes of a question, up to the terminal frame.

    Raises:
        OutsideError: it was refused, or the server stays away.
    """
    key = {"Idempotency-Key": str(new_id())}
    after, path, tries = START, "", 0
    while True:
        opened = (
            server.stream("GET", path, headers={"Last-Event-ID": str(after)})
            if path
            else server.stream("POST", "/chat", content=question.body(), headers=key)
        )
        try:
            async with opened as response:
                path = path or f"/chat/{response.headers['Flotilla-Execution-Id']}"
                async with aclosing(_events(response.aiter_lines())) as events:
                    async for cursor, data in events:
                        after, tries = cursor, 0
                        seen = _seen(data)
                        yield seen
                        if seen.view is not None:
                            return
        except Unconfirmed:
            if tries >= (RESUMES if path else 1):
                raise
        tries += 1
        await asyncio.sleep(min(1.0, 0.1 * tries))


async def _events(lines: AsyncIterator[str]) -> AsyncGenerator[tuple[Cursor, bytes]]:
    """Read server-sent events: the fields `id` and `data`, as the gateway writes them."""
    cursor = START
    async for line in lines:
        field, _, value = line.partition(": ")
        if field == "id":
            cursor = Cursor.parse(value)
        elif field == "data":
            yield cursor, value.encode()


def _seen(data: bytes) -> Seen:
    frame = from_json(data)
    view = frame.get("result") if frame["type"] == "RUN_FINISHED" else frame.get("rawEvent")
    ended = frame["type"] in {"RUN_FINISHED", "RUN_ERROR"}
    return Seen(
        type=frame["type"],
        delta=frame.get("delta", "") if frame["type"] == "TEXT_MESSAGE_CONTENT" else "",
        name=frame.get("name", ""),
        value=frame.get("value") or {},
        tool=frame.get("toolCallName", ""),
        view=RequestView.model_validate(view) if ended else None,
    )
