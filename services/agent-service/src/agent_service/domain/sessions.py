"""Sessions, their owners, and their messages as the HTTP API shows them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field, StringConstraints

from shared_models.requests import ClosedModel, Name, OpenModel, Principal, Status, Truncation

Title = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]


class NewSession(ClosedModel):
    """The body of `POST /api/v1/sessions`."""

    title: Title | None = None
    agent: Name | None = None


class SessionChange(ClosedModel):
    """The body of `PATCH /api/v1/sessions/{id}`."""

    title: Title


class SessionView(OpenModel):
    session_id: UUID
    title: str
    agent: str | None
    created_at: datetime
    updated_at: datetime
    active_request_id: UUID | None = None


class SessionPage(OpenModel):
    sessions: tuple[SessionView, ...]
    next: str | None = Field(default=None, description="Send it as `before` to get the next page.")


class MessageView(OpenModel):
    """One message of a session: the text of a person, or the answer or failure that came back.

    Attributes:
        truncated: the reason why an answer ends before the model was done; unset for a whole answer.
    """

    id: str
    turn: int
    role: Literal["user", "assistant"]
    content: str
    truncated: Truncation | None = None
    request_id: UUID
    status: Status
    created_at: datetime


class MessagePage(OpenModel):
    messages: tuple[MessageView, ...]
    next: str | None = Field(default=None, description="Send it as `before` to get the page of older messages.")


def owner_of(principal: Principal) -> str:
    """Return the owner of a principal's sessions: its issuer and its subject."""
    return f"{principal.issuer}|{principal.subject}"


@dataclass(frozen=True, slots=True)
class PageCursor:
    """The last session of a page; the next page begins after it.

    Attributes:
        updated_at, session_id: of that session, which is the order of the list.
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
