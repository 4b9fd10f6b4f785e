"""Sessions and their messages as people see them."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from shared_models.requests import ClosedModel, Name, OpenModel, Status, Truncation

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
    next: str | None = Field(default=None, description="Give it as `before` to get the page after this one.")


class MessageView(OpenModel):
    """One bubble: what a person asked, or what came back.

    Attributes:
        truncated: why an answer ends before the model was done, if it does.
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
    next: str | None = Field(default=None, description="Give it as `before` to get the older page.")
