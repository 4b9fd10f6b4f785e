"""Keep the text that people see while a reply is streamed, because a run may end before the reply does.

`perform_run` puts this between the agent loop and the frames. A reply that finished is in the journal; of any other
only this text is left, and it joins the session with the end of the run.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from agent_service.domain.history import REASONING_SUFFIX, Unfinished
from agent_service.ports import Frames
from shared_models.frames import Cursor


class ShownText:
    """Frames that keep the reasoning and the text of each message until it is taken back; implements `ports.Frames`."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._reasoning: dict[str, list[str]] = {}
        self._texts: dict[str, list[str]] = {}

    @property
    def last(self) -> Cursor:
        return self._frames.last

    def messages(self) -> dict[str, Unfinished]:
        """Return the messages by their ids, in the order in which they began; also those that have finished."""
        return {
            message_id: Unfinished(
                reasoning="".join(self._reasoning.get(message_id, ())), text="".join(self._texts.get(message_id, ()))
            )
            for message_id in dict.fromkeys((*self._reasoning, *self._texts))
        }

    def append(self, type_: str, **fields: object) -> Cursor:
        if type_ == "REASONING_MESSAGE_CONTENT":
            message_id = str(fields["messageId"]).removesuffix(REASONING_SUFFIX)
            self._reasoning.setdefault(message_id, []).append(str(fields["delta"]))
        return self._frames.append(type_, **fields)

    def text(self, message_id: UUID, delta: str) -> Cursor:
        self._texts.setdefault(str(message_id), []).append(delta)
        return self._frames.text(message_id, delta)

    def void(self, keep: Cursor | None, snapshot: Sequence[Mapping[str, object]]) -> object:
        self._reasoning.clear()
        self._texts.clear()
        return self._frames.void(keep, snapshot)
