"""OpenAI's chat completions as the simulator speaks them: what a call may get, what is refused, how chunks look."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

type Json = dict[str, Any]


class ToolUse(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    arguments: str = "{}"
    id: str | None = None


class Behaviour(BaseModel):
    """What one call gets; counts are of tokens sent before.

    Attributes:
        text: the reply; an echo of the prompt when unset.
        words: instead, a text of that many words.
        calls: tools it calls.
        tool: one tool it calls with no arguments, if the last message is the person's.
        status, retry_after, retry_after_ms, code: an error response instead of a stream.
        start_ms, token_ms: before the first token, and between tokens.
        stall_after: then nothing more comes.
        cut_after: then the stream ends as if it were done, without finish reason and `[DONE]`.
        reset_after: then the connection is reset.
        malformed_after: then a frame comes that is not JSON.
        error_after: then an error comes inside the stream.
        finish: the finish reason, when not `stop` or `tool_calls`.
        times: how often this behaviour happens (for the same directive) before calls are answered by an echo.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    text: str | None = None
    words: int | None = None
    calls: tuple[ToolUse, ...] = ()
    tool: str | None = None
    status: int | None = None
    retry_after: int | None = None
    retry_after_ms: float | None = None
    code: str | None = None
    start_ms: float = 0
    token_ms: float = 0
    stall_after: int | None = None
    cut_after: int | None = None
    reset_after: int | None = None
    malformed_after: int | None = None
    error_after: int | None = None
    finish: str | None = None
    times: int | None = None


@dataclass
class Call:
    """One call as the provider saw it.

    Attributes:
        outcome: `open` while it goes on, then `done`, a status, `cut`, `reset`, `malformed`, `error` or `disconnected`.
        began, ended: seconds of the monotonic clock.
    """

    number: int
    model: str
    messages: list[Json]
    tools: list[str]
    body: Json = field(repr=False)
    outcome: str = "open"
    sent: int = 0
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None


def invalid(messages: Sequence[Json]) -> str | None:
    """Say what OpenAI would refuse about a list of messages, if anything."""
    turns = [message for message in messages if message["role"] not in {"system", "developer"}]
    if not turns or turns[0]["role"] != "user":
        return "the conversation must start with a user message"
    open_calls: list[str] = []
    for number, message in enumerate(turns):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_calls:
                return f"messages[{number}]: no tool call {message.get('tool_call_id')!r} comes before this result"
            open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            return f"messages[{number}]: tool calls {open_calls} have no result"
        if message["role"] == "assistant":
            open_calls = [call["id"] for call in message.get("tool_calls") or []]
            if not open_calls and not message.get("content"):
                return f"messages[{number}]: an assistant message needs content or tool calls"
        elif not message.get("content"):
            return f"messages[{number}]: a user message needs content"
    return f"tool calls {open_calls} have no result" if open_calls else None


def last_said(messages: Sequence[Json]) -> str:
    """Return the text of the person's last message."""
    content = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def chunk(call: Call, delta: Json, *, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _event(call, [choice])


def usage_chunk(call: Call) -> bytes:
    heard = sum(len(str(message.get("content") or "").split()) for message in call.messages)
    usage = {"prompt_tokens": heard, "completion_tokens": call.sent, "total_tokens": heard + call.sent}
    return _event(call, [], usage=usage)


def _event(call: Call, choices: list[Json], usage: Json | None = None) -> bytes:
    event = {
        "id": f"chatcmpl-{call.number}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": call.model,
        "choices": choices,
        "usage": usage,
    }
    return b"data: " + json.dumps(event).encode() + b"\n\n"
