"""Ask a running fleet a question, and follow the answer as it comes; a stream that breaks is resumed where it was.

The frames are AG-UI events over server-sent events, as `shared_models.frames` describes them. Only their JSON is read
here: the models of the frames, and pydantic with them, would take longer to import than the whole command takes.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote
from uuid import UUID, uuid4

from command_line.event_stream import parse_events
from command_line.remote import RemoteCall, RemoteFleet, open_stream
from shared_clients.errors import Permanent, Transient

RESUMES: Final = 30
"""How often in a row a stream that brings nothing new is resumed, with a pause of at most a second."""


@dataclass(frozen=True, slots=True)
class Question:
    content: str
    agent: str | None = None
    session_id: UUID | None = None

    def body(self) -> bytes:
        fields = {"content": self.content, "agent": self.agent, "session_id": self.session_id and str(self.session_id)}
        return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


@dataclass(frozen=True, slots=True)
class Text:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The agent calls a tool."""

    tool: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """The text so far, or its end, is void: the run goes on from its last finished step."""


@dataclass(frozen=True, slots=True)
class Retrying:
    """The model is called again, because it failed before its first token."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The run has ended.

    Attributes:
        request: the request as polling shows it (`RequestView`).
        status: its final status.
        error: the notice for people, where there is no answer.
        truncated: the bound at which the answer was cut (`Truncation`), where it was.
    """

    request: Mapping[str, object]
    status: str
    error: str | None
    truncated: str | None = None


type AnswerPart = Text | ToolCall | Restarted | Retrying | Ended


def follow_answer(fleet: RemoteFleet, question: Question) -> Iterator[AnswerPart]:
    """Ask, and yield the parts of the answer as they come; the last one is `Ended`.

    Raises:
        OutsideError: the question was refused, or the fleet stays away.
    """
    idempotency = {"Idempotency-Key": str(uuid4())}
    request = RemoteCall("POST", "/chat", question.body(), idempotency)
    position, attempts = "", 0
    while True:
        try:
            with open_stream(fleet, request) as stream:
                path = request.path if request.method == "GET" else _stream_path(stream.execution_id)
                request = RemoteCall("GET", path, headers=_resuming(position))
                for event in parse_events(stream.chunks):
                    position, attempts = event.last_event_id, 0
                    request = RemoteCall("GET", path, headers=_resuming(position))
                    part = _answer_part(event.data)
                    if part is not None:
                        yield part
                    if isinstance(part, Ended):
                        return
            failure = Transient(f"GET {fleet.url}{path}: the stream closed before the answer was complete")
        except Transient as error:
            failure = error
        attempts += 1
        if attempts > (RESUMES if request.method == "GET" else 1):
            raise failure
        time.sleep(min(1.0, 0.1 * attempts))


def _stream_path(execution_id: str | None) -> str:
    if execution_id is None:
        raise Permanent("the server accepted POST /chat and named no execution: it is not Flotilla's gateway")
    return f"/chat/{quote(execution_id, safe='')}"


def _resuming(position: str) -> dict[str, str]:
    return {"Last-Event-ID": position} if position else {}


def _answer_part(data: str) -> AnswerPart | None:
    """Return the part of the answer in a frame; None for a frame that the command line does not show.

    Raises:
        Permanent: the frame is no JSON, or ends the run without its result.
    """
    try:
        frame = json.loads(data or "null")
    except ValueError as error:
        raise Permanent(f"expected AG-UI events in JSON from the fleet, and got {data[:100]!r}") from error
    part: AnswerPart | None = None
    match frame:
        case {"type": "TEXT_MESSAGE_CONTENT", "delta": str(delta)}:
            part = Text(delta)
        case {"type": "TEXT_MESSAGE_END"}:
            part = Text("\n")
        case {"type": "TOOL_CALL_START", "toolCallName": str(tool)}:
            part = ToolCall(tool)
        case {"type": "CUSTOM"}:
            part = _custom_part(frame)
        case {"type": "RUN_FINISHED", "result": {"status": str(status), "response": {"truncated": str(bound)}}}:
            part = Ended(frame["result"], status, None, bound)
        case {"type": "RUN_FINISHED", "result": {"status": str(status)}}:
            part = Ended(frame["result"], status, None)
        case {"type": "RUN_ERROR", "message": str(message), "rawEvent": {"status": str(status)}}:
            part = Ended(frame["rawEvent"], status, message)
        case {"type": "RUN_FINISHED" | "RUN_ERROR"}:
            raise Permanent(f"expected the request in the last frame of its run, and got {data[:100]!r}")
        case _:
            pass
    return part


def _custom_part(frame: Mapping[str, object]) -> AnswerPart | None:
    match frame:
        case {"name": "reset"}:
            return Restarted()
        case {"name": "retrying"}:
            return Retrying()
        case {"name": "resync", "value": {"content": str(content)}}:
            return Text(f"\n{content}")
        case _:
            return None
