"""OpenAI's chat completions as they stream: what a chunk is, and how pieces become an answer.

Many servers speak this protocol, and each bends it: names and ids that come again, calls without an index, counts in
each chunk, arguments as an object, the answer in one piece. `ChatChunks` reads them by the protocol's rule and hands
the SDK chunks of one strict shape. Text passes at once; calls, counts and the finish reason come joined at the end.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeGuard

from agent_service.adapters.wire import Event, StreamBrokenError
from shared_models.agents import Dialect

LEARNABLE: Final[Mapping[str, Dialect]] = {
    "max_completion_tokens": Dialect(rename={"max_completion_tokens": "max_tokens"}),
    "max_tokens": Dialect(rename={"max_tokens": "max_completion_tokens"}),
    "stream_options": Dialect(omit=("stream_options",)),
    "parallel_tool_calls": Dialect(omit=("parallel_tool_calls",)),
    "tool_choice": Dialect(omit=("tool_choice",)),
    "temperature": Dialect(omit=("temperature",)),
}
"""Members that an older or smaller server may refuse, and what it gets instead."""

MAX_ARGUMENTS: Final = 1 << 20
"""Characters of the arguments of all calls of one answer."""

_NO_REASON = frozenset({"", "null", "none"})
_TEXTS = ("reasoning_content", "reasoning", "refusal")

type Json = Mapping[str, object]


def joined_pairs(text: str) -> str:
    """Return a text whose surrogate pairs are characters; half a pair is replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


@dataclass(slots=True)
class _Text:
    """A text that comes in pieces; half a surrogate pair waits for its other half."""

    half: str = ""

    def take(self, piece: str) -> str:
        text, self.half = self.half + piece, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self.half = text[:-1], text[-1]
        return joined_pairs(text)


@dataclass(slots=True)
class _Call:
    """One tool call, as far as its pieces have come."""

    id: str = ""
    name: str = ""
    arguments: str = ""
    extra: Json | None = None

    def take(self, piece: Json, function: Json) -> None:
        """Join a piece: a name or id that comes again counts once, one that goes on is added to."""
        self.id = self.id or _text(piece, "id")
        name = _text(function, "name")
        if name:
            self.name = name if name.startswith(self.name) else self.name + name
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            self.arguments = json.dumps(arguments, ensure_ascii=False)
        elif isinstance(arguments, str):
            self.arguments += arguments
        elif arguments is not None:
            raise StreamBrokenError("the arguments of a tool call are neither text nor an object")
        extra = piece.get("extra_content")  # signatures that some servers want back
        self.extra = extra if isinstance(extra, dict) else self.extra

    @property
    def complete(self) -> bool:
        if not self.arguments:
            return True
        try:
            json.loads(self.arguments)
        except (ValueError, RecursionError):
            return False
        return True


@dataclass(slots=True)
class _Calls:
    """The tool calls of one answer, by their index; where a server sends none or always the same, by their id."""

    calls: list[_Call] = field(default_factory=list)
    _by_index: dict[int, _Call] = field(default_factory=dict)

    def take(self, piece: Json) -> None:
        function = _object(piece, "function")
        index = _index(piece.get("index"))
        if not (_text(piece, "id") or function or piece.get("extra_content")):
            return  # an empty piece carries nothing
        call = self._call_of(index, _text(piece, "id"), _text(function, "name"))
        if index is not None:
            self._by_index[index] = call
        call.take(piece, function)
        if sum(len(known.arguments) for known in self.calls) > MAX_ARGUMENTS:
            raise StreamBrokenError(f"tool calls with more than {MAX_ARGUMENTS} characters of arguments came")

    def _call_of(self, index: int | None, call_id: str, name: str) -> _Call:
        if index is not None:
            known = self._by_index.get(index)
        else:
            last = self.calls[-1] if self.calls else None
            known = next((call for call in self.calls if call_id and call.id == call_id), None if call_id else last)
            if known is None and not name:
                known = last
        another = bool(known and name and known.name and known.complete) and (
            bool(call_id and known and known.id and call_id != known.id) or (index is None and not call_id)
        )
        if known is None or another:
            known = _Call()
            self.calls.append(known)
        return known

    def deltas(self) -> list[Json]:
        for call in self.calls:
            if not call.name:
                raise StreamBrokenError("a tool call without a name came")
        return [
            {
                "index": index,
                "id": joined_pairs(call.id) or None,
                "type": "function",
                "function": {"name": joined_pairs(call.name), "arguments": joined_pairs(call.arguments)},
                **({"extra_content": call.extra} if call.extra else {}),
            }
            for index, call in enumerate(self.calls)
        ]


class ChatChunks:
    """Reads the chunks of one answer; implements `wire.Chunks`.

    Data that is no object carries no piece and is passed over. A member in a shape that the protocol does not know may
    hold a piece, so it breaks the stream, unless it only describes the answer (`created`, `model`, counts).
    """

    def __init__(self) -> None:
        self.done = False
        self._reason = ""
        self._id = ""
        self._model = ""
        self._usage: dict[str, object] = {}
        self._calls = _Calls()
        self._texts = {name: _Text() for name in ("content", *_TEXTS)}

    @property
    def finished(self) -> bool:
        return bool(self._reason)

    def read(self, event: Event) -> bytes:
        """Return the text of one event as a chunk; see `wire.Chunks`."""
        if event.data.strip().startswith("[DONE]"):
            self.done = True
            return b""
        try:
            data = json.loads(event.data)
        except (ValueError, RecursionError):
            raise StreamBrokenError("data came that is not JSON") from None
        if not isinstance(data, dict):
            return b""
        if (error := _error(event.name, data)) is not None:
            return _event({"error": error})
        self._id = self._id or _text(data, "id")
        self._model = self._model or _text(data, "model")
        choice = _first(data.get("choices"))
        self._count(data.get("usage") or choice.get("usage"))
        delta = self._take(choice)
        return self._chunk(delta) if delta else b""

    def close(self) -> bytes:
        """Return the joined calls, the finish reason and the counts, and the end of the stream."""
        delta: dict[str, object] = {name: joined_pairs(text.half) for name, text in self._texts.items() if text.half}
        if calls := self._calls.deltas():
            delta["tool_calls"] = calls
        last = self._chunk(delta, finish=joined_pairs(self._reason) or None, usage=self._usage or None)
        return last + b"data: [DONE]\n\n"

    def _take(self, choice: Json) -> dict[str, object]:
        """Take the pieces of one choice, and return its text; a `message` is an answer in one piece."""
        delta = _object(choice, "delta") or _object(choice, "message")
        reason = choice.get("finish_reason")
        if reason is not None and str(reason).strip().lower() not in _NO_REASON:
            self._reason = str(reason)
        pieces = delta.get("tool_calls")
        if pieces is not None and not isinstance(pieces, list):
            raise StreamBrokenError("tool_calls is no list")
        for piece in pieces or ():
            if piece is not None and not isinstance(piece, dict):
                raise StreamBrokenError("a tool call is no object")
            self._calls.take(piece or {})
        texts = {"content": _content(delta.get("content")), **{name: _text(delta, name) for name in _TEXTS}}
        return {name: text for name, piece in texts.items() if (text := self._texts[name].take(piece))}

    def _count(self, usage: object) -> None:
        """Keep the counts that came last: where they come in each chunk, each is of all the answer so far."""
        counts = _counts(usage) if isinstance(usage, dict) else {}
        if any(count for count in counts.values()):
            self._usage = {"prompt_tokens": 0, "completion_tokens": 0, **counts}

    def _chunk(self, delta: Json, *, finish: str | None = None, usage: Json | None = None) -> bytes:
        return _event(
            {
                "id": joined_pairs(self._id),
                "object": "chat.completion.chunk",
                "created": 0,
                "model": joined_pairs(self._model),
                "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
                "usage": usage,
            }
        )


def _event(data: Json) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _error(name: str, data: Json) -> Json | None:
    """Return the error that an event tells of, in the SDK's shape, or None."""
    found = data.get("error")
    if not found:
        if name != "error" and data.get("object") != "error":
            return None
        found = data
    error = found if isinstance(found, dict) else {"message": str(found)}
    code = error.get("code")
    return {
        "message": _text(error, "message"),
        "type": _text(error, "type") or None,
        "code": str(code) if isinstance(code, str | int) else None,
    }


def _first(choices: object) -> Json:
    """Return the choice that was asked for, or an empty one."""
    if choices is None:
        return {}
    if not isinstance(choices, list):
        raise StreamBrokenError("choices is no list")
    for choice in choices:
        if choice is not None and not isinstance(choice, dict):
            raise StreamBrokenError("a choice is no object")
        if choice and choice.get("index") in (None, 0):
            return choice
    return {}


def _content(content: object) -> str:
    """Return the text of `content`: a text, or a list of parts, of which those of text count."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise StreamBrokenError("content is neither text nor a list")
    return "".join(part if isinstance(part, str) else _text(part, "text") if _is_text(part) else "" for part in content)


def _is_text(part: object) -> TypeGuard[Json]:
    return isinstance(part, dict) and part.get("type", "text") == "text"


def _object(data: Json, name: str) -> Json:
    value = data.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise StreamBrokenError(f"{name} is no object")
    return value


def _text(data: Json, name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _index(value: object) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _counts(usage: Mapping[object, object]) -> dict[str, object]:
    """Return the counts in a `usage` that can be counts, those of its details included."""
    counts: dict[str, object] = {}
    for name, value in usage.items():
        if isinstance(value, dict):
            counts[str(name)] = _counts(value)
        elif isinstance(value, int | float) and 0 <= value < 1 << 53:
            counts[str(name)] = int(value)
    return counts
