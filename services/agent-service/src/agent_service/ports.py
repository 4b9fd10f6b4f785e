"""The ports of the agent loop: its models, its tools, its journal, and the frames that show its progress.

`usecases/run_agent` knows only these. `adapters/models` implements `Models`, `adapters/tools` provides `Tool`,
`usecases/perform_run` keeps the journal in Postgres, and `run_frames.FrameWriter` implements `Frames`.
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
        name: the name by which agents and models refer to it.
        description: instructs the model when to use it.
        parameters: JSON Schema of its arguments, an object.
        call: takes arguments that fit the schema, returns text for the model; raises ToolFailed.
    """

    name: str
    description: str
    parameters: Mapping[str, object]
    call: Callable[[Mapping[str, object]], Awaitable[str]]


class Frames(Protocol):
    """The progress of a run as a person sees it; no method waits or fails."""

    @property
    def last(self) -> Cursor:
        """The cursor of the last frame that was appended."""

    def append(self, type_: str, **fields: object) -> Cursor:
        """Append one AG-UI event."""

    def text(self, message_id: UUID, delta: str) -> Cursor:
        """Append text to a message that has started."""

    def void(self, keep: Cursor | None, snapshot: Sequence[Mapping[str, object]]) -> object:
        """Take back every frame after `keep`; `snapshot` holds the AG-UI messages that remain."""


class Journal(Protocol):
    """The finished steps of one run; a step is `model:<n>` or `tool:<call id>`, and its message as JSON."""

    def finished(self, key: str) -> str | None:
        """Return the message of a step that an earlier attempt or epoch finished; None for any other."""

    async def record(self, key: str, message: str, keep: Cursor) -> None:
        """Make a step durable, with the cursor of its last frame.

        Raises:
            Stale: another worker owns the run now.
        """


class Models(Protocol):
    """The models of one agent, in the order in which they are tried."""

    async def stream_reply(
        self, history: Sequence[ModelMessage], tools: Sequence[Tool], frames: Frames
    ) -> ModelResponse:
        """Request the next message and show its text as it arrives.

        Args:
            history: valid for a provider; it ends with a request.
            tools: the tools that the model may call.
            frames: receives one text message, which has ended when this returns.

        Returns:
            A whole response; its metadata holds the id of its message.

        Raises:
            ModelUnavailable, ModelRefused, ModelCut: no model gave a whole response.
        """
