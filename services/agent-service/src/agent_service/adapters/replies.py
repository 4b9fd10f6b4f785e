"""Judge the reply of a model, whoever its provider is: whether it is whole, and what of it can be kept.

`adapters/models` asks this of each reply that an SDK has put together. A reply is whole only with a finish reason that
says so. What Postgres, JSON or a terminal cannot hold is replaced here, before anything is stored or shown.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum, auto
from math import isfinite
from typing import Final

from pydantic import JsonValue
from pydantic_ai.messages import ModelMessagesTypeAdapter, ModelResponse, ModelResponsePart, TextPart, ToolCallPart

from agent_service.adapters.model_failures import CallFailed
from agent_service.domain.history import TRUNCATED, plain, text_of, truncation_of
from agent_service.errors import ModelCut, ModelRefused, NoAnswer, OutOfTokens
from shared_models.ids import new_id
from shared_models.requests import Truncation

MAX_ANSWER: Final = 196_608
"""Bytes of one answer's text as JSON: three quarters of an event's 256 KiB, which carries it with its usage and ids."""

MAX_ID: Final = 200
MAX_NAME: Final = 64

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_ID = re.compile(rf"[!-~]{{1,{MAX_ID}}}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")


class Ending(Enum):
    """What a provider's finish reason says of the reply before it."""

    WHOLE = auto()
    CUT = auto()
    REFUSED = auto()


_REASONS: Final[Mapping[Ending, str]] = {
    Ending.WHOLE: "stop tool_call tool_calls function_call end_turn stop_sequence tool_use eos eos_token complete "
    "completed",
    Ending.CUT: "length max_tokens model_length max_output_tokens model_context_window_exceeded",
    Ending.REFUSED: "content_filter refusal safety recitation blocklist prohibited_content spii sensitive "
    "guardrail_intervened",
}
"""Finish reasons of the providers, in lower case; each that is not here is of a reply that broke off."""

ENDINGS: Final[Mapping[str, Ending]] = {reason: ending for ending, all_ in _REASONS.items() for reason in all_.split()}


def check_reply(reply: ModelResponse, label: str) -> ModelResponse:
    """Return a reply that may be kept: whole, or cut at the model's limit and marked as that.

    Tool calls of a reply that was cut are left out, because it is not known what was meant.

    Raises:
        CallFailed: it is a refusal, broken off, or says nothing.
    """
    reason = str((reply.provider_details or {}).get("finish_reason") or "")
    ending = ENDINGS.get(reason.lower())
    if ending is Ending.REFUSED or reply.finish_reason == "content_filter":
        raise CallFailed(ModelRefused, f"{label}: content filter", final=True)
    if ending is None:
        why = f"the finish reason {_shown(reason)}" if reason else "the stream ended without a finish reason"
        raise CallFailed(ModelCut, f"{label}: {why}", broke=True)
    if ending is Ending.CUT:
        reply = cut(reply, text_of(reply), truncation_of(reply) or Truncation.LENGTH)
        if is_blank(text_of(reply)):
            raise CallFailed(OutOfTokens, f"{label}: its length limit came before an answer")
    if is_blank(text_of(reply)):
        if not reply.tool_calls:
            raise CallFailed(NoAnswer, f"{label}: an empty reply", broke=True)
        reply = replace(reply, parts=[part for part in reply.parts if not isinstance(part, TextPart)])
    return storable(reply)


def cut(reply: ModelResponse, text: str, why: Truncation) -> ModelResponse:
    """Return a reply that says only `text`, calls nothing, and is marked as cut."""
    others = [part for part in reply.parts if not isinstance(part, TextPart | ToolCallPart)]
    return replace(
        reply,
        parts=[*others, TextPart(content=text)],
        finish_reason="length",
        provider_details={**(reply.provider_details or {}), "finish_reason": "length"},
        metadata={**(reply.metadata or {}), TRUNCATED: why.value},
    )


def is_blank(text: str) -> bool:
    """Tell whether a person would see nothing of a text: white space, and characters without a shape."""
    return all(
        letter.isspace() or letter == "\ufffd" or unicodedata.category(letter) in {"Cf", "Cc"} for letter in text
    )


def printable(text: str) -> str:
    """Replace what a terminal would obey, and what neither JSON nor Postgres can carry."""
    return _CONTROLS.sub("\ufffd", plain(text))


def size_of(text: str) -> int:
    """Return how many bytes a text has inside of JSON."""
    return len(json.dumps(text, ensure_ascii=False).encode(errors="replace")) - 2


def fitting(text: str, room: int) -> str:
    """Return as much of the beginning of a text as has `room` bytes inside of JSON."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size_of(text[:middle]) <= room else (low, middle - 1)
    return text[:low]


def storable(reply: ModelResponse) -> ModelResponse:
    """Return a reply that Postgres can hold and every provider takes back."""
    dumped = ModelMessagesTypeAdapter.dump_python([reply])
    [kept] = ModelMessagesTypeAdapter.validate_python(_plain(dumped))
    assert isinstance(kept, ModelResponse), "a response stays one"
    return replace(kept, parts=[_storable(part) for part in kept.parts])


def _storable(part: ModelResponsePart) -> ModelResponsePart:
    if isinstance(part, TextPart):
        return replace(part, content=printable(part.content))
    if isinstance(part, ToolCallPart):
        call_id = part.tool_call_id if _ID.fullmatch(part.tool_call_id) else f"call_{new_id().hex}"
        name = _NOT_IN_NAMES.sub("_", part.tool_name)[:MAX_NAME] or "_"
        args = _arguments(part.args) if isinstance(part.args, str) else part.args_as_dict()
        return ToolCallPart(
            name, args, call_id, provider_name=part.provider_name, provider_details=part.provider_details
        )
    return part


def _arguments(text: str) -> str:
    """Return arguments in JSON whose texts hold nothing that Postgres refuses, escaped or not."""
    try:
        arguments: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        return text
    kept = _plain(arguments)
    return text if kept == arguments else json.dumps(kept, ensure_ascii=False)


def _plain(value: object) -> object:
    match value:
        case str():
            return plain(value)
        case dict():
            return {_plain(name): _plain(inner) for name, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case float() if not isfinite(value):
            return None
        case _:
            return value


def _shown(reason: str) -> str:
    """Return a finish reason for the log, if it looks like one."""
    return reason if re.fullmatch(r"[A-Za-z][\w.-]{0,63}", reason) else "that is no word"
