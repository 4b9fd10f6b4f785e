"""What the agent loop needs from outside: models, tools, a journal, and somewhere to show its progress.

`usecases/run_agent` knows only these. `adapters/models` and `adapters/tools` fill the first two; the journal is rows in
this service's Postgres, and `run_frames.FrameWriter` is `Frames`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from pydantic_ai.messages import ModelMessage, ModelResponse

from shared_models.frames import Cursor


@dataclass(frozen=True, slots=True)
class Tool:
    """A read-only tool that runs in place.

    Attributes:
        name: what agents and models call it.
        description: tells the model when to use it.
        parameters: JSON Schema of its arguments, an object.
        call: takes arguments that fit the schema, returns text for the model; raises ToolFailed.
    """

    name: str
    description: str
    parameters: Mapping[str, object]
    call: Callable[[Mapping[str, object]], Awaitable[str]]


class Frames(Protocol):
    """What a person sees of the run; nothing here waits or fails."""

    @property
    def last(self) -> Cursor:
        """The place of the last frame appended."""

    def append(self, type_: str, **fields: object) -> Cursor:
        """Append one AG-UI event."""

    def text(self, message_id: UUID, delta: str) -> Cursor:
        """Append text to a message that was started."""

    def void(self, keep: Cursor | None, snapshot: Sequence[Mapping[str, object]]) -> object:
        """Take back what came after `keep`; `snapshot` holds the AG-UI messages that remain."""


class Journal(Protocol):
    """The finished steps of one run: `model:<n>` and `tool:<call id>`, each one message as JSON."""

    def finished(self, key: str) -> str | None:
        """Return the step's message, if an earlier attempt or epoch finished it."""

    async def record(self, key: str, message: str, keep: Cursor) -> None:
        """Make a step durable, with the place of its last frame.

        Raises:
            Stale: another worker owns the run now.
        """


class Models(Protocol):
    """The models of one agent, in the order in which they are asked."""

    async def stream_reply(
        self, history: Sequence[ModelMessage], tools: Sequence[Tool], frames: Frames
    ) -> ModelResponse:
        """Ask for the next message and show its text as it comes.

        Args:
            history: valid for a provider, and ending with a request.
            tools: what the model may call.
            frames: gets one text message, closed before this returns.

        Returns:
            A whole response, with the id of its message in its metadata.

        Raises:
            ModelUnavailable, ModelRefused, ModelCut: no model gave one.
        """
