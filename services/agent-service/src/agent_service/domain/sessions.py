"""Sessions, their owners, and their messages as the HTTP API shows them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field, StringConstraints

from shared_models.requests import ClosedModel, Failure, Name, OpenModel, Status, Truncation, Usage

Title = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]


class NewSession(ClosedModel):
    """The body of `POST /api/v1/sessions`."""

    title: Title | None = None
    agent: Name | None = None


class SessionChange(ClosedModel):
    """The body of `PATCH /api/v1/sessions/{id}`."""

    title: Title


class SessionView(OpenModel):
    """A conversation as its owner sees it in a list.

    Attributes:
        channel: the way in which its first request came: `web`, `api` or `cli`; unset before that.
        match: where the list is a search, the text in which the words were found, shortened; unset for a title.
    """

    session_id: UUID
    title: str
    agent: str | None
    created_at: datetime
    updated_at: datetime
    active_request_id: UUID | None = None
    channel: str | None = None
    match: str | None = None


class SessionPage(OpenModel):
    sessions: tuple[SessionView, ...]
    next: str | None = Field(default=None, description="Send it as `before` to get the next page.")


class MessageText(OpenModel):
    """Text of an answer; what a model says before a tool call is a part of its own."""

    type: Literal["text"] = "text"
    id: str
    text: str


class ReasoningPart(OpenModel):
    """The reasoning that a model showed before its text."""

    type: Literal["reasoning"] = "reasoning"
    id: str
    text: str


class ToolPart(OpenModel):
    """A tool call and its result.

    Attributes:
        id: the id of the call.
        arguments: JSON.
        result: unset where the run ended before the tool did.
        failed: the result says why the tool could not do its work.
        milliseconds: the time that the tool took.
    """

    type: Literal["tool"] = "tool"
    id: str
    name: str
    arguments: str
    result: str | None = None
    failed: bool = False
    milliseconds: int | None = None


Part = Annotated[MessageText | ReasoningPart | ToolPart, Field(discriminator="type")]


class MessageView(OpenModel):
    """One message of a session: the text of a person, or all that an agent said and did about it.

    Attributes:
        content: the text; of a run that ended without an answer the text that people saw, else the sentence of `error`.
        parts: of an agent's message, its texts, reasoning and tool calls in their order; `content` is the last text.
        truncated: the reason why an answer ends before the model was done; unset for a whole answer.
        error: the reason why the run ended before it had an answer, as when a person stopped it.
        after_turn: the turn that this one follows; 0 at the beginning of the session.
        current: whether the turn is in the current branch, which ends with the last turn and is what a model is sent.
        branches: the requests that follow the same turn, this one included; several after Regenerate or Edit.
        agent, revision, models, usage: of an agent's message, what answered, and the tokens of all its model calls.
        started_at: when the first worker began.
        created_at: when the person asked, or when the run ended.
    """

    id: str
    turn: int
    role: Literal["user", "assistant"]
    content: str
    parts: tuple[Part, ...] = ()
    truncated: Truncation | None = None
    error: Failure | None = None
    request_id: UUID
    status: Status
    after_turn: int
    current: bool = True
    branches: tuple[UUID, ...]
    agent: str | None = None
    revision: str | None = None
    models: tuple[str, ...] = ()
    usage: Usage | None = None
    started_at: datetime | None = None
    created_at: datetime


class MessagePage(OpenModel):
    messages: tuple[MessageView, ...]
    next: str | None = Field(default=None, description="Send it as `before` to get the page of older messages.")


MATCH_LENGTH = 120


def match_of(text: str | None, words: str) -> str | None:
    """Return the part of a text around the words that were found in it, in one line."""
    if text is None:
        return None
    place = max(text.lower().find(words.lower()), 0)
    start = max(place - MATCH_LENGTH // 3, 0)
    cut = text[start : start + MATCH_LENGTH]
    line = " ".join(cut.split())
    return f"{'…' if start else ''}{line}{'…' if start + MATCH_LENGTH < len(text) else ''}"


@dataclass(frozen=True, slots=True)
class PageCursor:
    """The last session of a page; the next page begins after it.

    Attributes:
        updated_at, session_id: those of the last session; the list is ordered by both.
    """

    updated_at: datetime
    session_id: UUID

    def __str__(self) -> str:
        return f"{self.updated_at.isoformat()}_{self.session_id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of a cursor; a `+` that a client did not escape arrives as a space.

        Raises:
            ValueError, OverflowError: the text is not a cursor.
        """
        updated_at, _, session_id = text.partition("_")
        return cls(datetime.fromisoformat(updated_at.replace(" ", "+")).astimezone(UTC), UUID(session_id))
