"""What can go wrong with one model call, from the library's errors to ours.

Decides three things for `adapters/models`: whether the same call may do better later, whether the model may be asked
again after the others, and what the run is told if nobody answers. Bodies of provider errors never pass: they quote
keys and conversations.
"""

import re

import httpx2
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelServerError,
    ModelUnavailableError,
    UnexpectedModelBehavior,
)
from pydantic_ai.messages import ModelResponse

from agent_service.domain.history import text_of
from agent_service.errors import ModelCut, ModelRefused, ModelUnavailable, RunFailed

FOREIGN = (ModelAPIError, UnexpectedModelBehavior, httpx2.HTTPError, httpx2.StreamError, TimeoutError)
"""All that one call through pydantic-ai may raise because of the provider."""

_CODE = re.compile(r"[a-z][a-z0-9_.-]{0,63}")


class CallFailed(Exception):  # noqa: N818 - private to the adapters; runs fail with `outcome`
    """One model call gave no reply.

    Args:
        outcome: what the run fails with, if this was the last hope.
        detail: model and kind, safe to log.
        again: nothing had come yet, and the same call may succeed later.
        broke: it had begun and broke off; the model may be asked again after the others.
        final: no other model should be asked either.
        retry_after: seconds the provider asked us to wait.
    """

    def __init__(
        self,
        outcome: type[RunFailed],
        detail: str,
        *,
        again: bool = False,
        broke: bool = False,
        final: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail
        self.again = again
        self.broke = broke
        self.final = final
        self.retry_after = retry_after


def translate(error: Exception, label: str, began: bool) -> CallFailed:
    """Translate an error of one call.

    Args:
        error: one of `FOREIGN`.
        label: `<provider>:<model>`.
        began: something of the reply had come.
    """
    detail = f"{label}: {_kind(error)}"
    match error:
        case ModelQuotaExceededError() | ModelAuthenticationError() | ModelNotFoundError():
            return CallFailed(ModelUnavailable, detail)
        case ModelRequestRejectedError():
            return CallFailed(ModelRefused, detail)
        case _ if began:
            return CallFailed(ModelCut, detail, broke=True)
        case ModelRateLimitError() | ModelUnavailableError() | ModelServerError() | ModelConnectionError():
            return CallFailed(ModelUnavailable, detail, again=True, retry_after=error.retry_after)
        case TimeoutError() | httpx2.HTTPError():
            return CallFailed(ModelUnavailable, detail, broke=True)
        case _:
            return CallFailed(ModelCut, detail, broke=True)


def _kind(error: Exception) -> str:
    """Name an error by what cannot hold a secret: its status, the provider's code, where the connection failed."""
    code = error.provider_error_code if isinstance(error, ModelAPIError) else None
    safe = f" {code}" if code is not None and _CODE.fullmatch(code) else ""
    match error:
        case TimeoutError():
            return "nothing came for too long"
        case ModelHTTPError():
            return f"status {error.status_code}{safe}"
        case ModelConnectionError():
            return f"the connection failed in {error.phase or 'an unknown phase'}"
        case httpx2.HTTPError() | httpx2.StreamError():
            return f"the connection failed ({type(error).__name__})"
        case _:
            return f"the stream could not be read{safe}"


def check_whole(reply: ModelResponse, label: str) -> ModelResponse:
    """Return a reply that its provider finished and that says something.

    Raises:
        CallFailed: it is a refusal, cut off, or empty.
    """
    if reply.finish_reason == "content_filter":
        raise CallFailed(ModelRefused, f"{label}: content filter", final=True)
    if not (reply.provider_details or {}).get("finish_reason"):
        raise CallFailed(ModelCut, f"{label}: the stream ended without a finish reason", broke=True)
    if not reply.tool_calls and not text_of(reply):
        raise CallFailed(ModelRefused, f"{label}: an empty reply", broke=True)
    return reply
