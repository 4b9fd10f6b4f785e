"""What can go wrong with one model call, from the library's errors to ours.

Decides three things for `adapters/models`: whether the same call may do better later, whether the model may be asked
again after the others, and what the run is told if nobody answers. The person is told what to do; the operator gets
the status, the host, the provider's code, and its message where that is safe: see `adapters/redaction`.
"""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx2
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelServerError,
    ModelUnavailableError,
    UnexpectedModelBehavior,
)

from agent_service.adapters.redaction import looks_like_key, short_message
from agent_service.adapters.wire import StreamBrokenError, WrongAddressError
from agent_service.errors import (
    ContextTooLong,
    KeyRefused,
    ModelBusy,
    ModelCut,
    ModelNotFound,
    ModelRefused,
    ModelUnavailable,
    ModelUnreachable,
    QuotaSpent,
    RequestNotTaken,
    RunFailed,
)

FOREIGN = (
    ModelAPIError,
    UnexpectedModelBehavior,
    StreamBrokenError,
    httpx2.HTTPError,
    httpx2.StreamError,
    TimeoutError,
)
"""All that one call through pydantic-ai may raise because of the provider."""

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_TOO_LONG = re.compile(
    r"context.{0,12}(length|window|size)|context_length|prompt is too long|input is too long|too many (input )?tokens"
    r"|reduce the length|maximum.{0,20}tokens allowed|exceeds the (maximum|available).{0,20}(context|tokens)"
)
_POLICY = re.compile(r"content_?(filter|policy)|moderation|safety|flagged|responsible_?ai", re.IGNORECASE)
_SETTLED: tuple[tuple[type[Exception], type[RunFailed]], ...] = (
    (ModelContextWindowExceededError, ContextTooLong),
    (ModelQuotaExceededError, QuotaSpent),
    (ModelAuthenticationError, KeyRefused),
    (ModelNotFoundError, ModelNotFound),
    (WrongAddressError, ModelNotFound),
)
"""Errors that the same call to the same model meets again."""

_PASSING: tuple[tuple[type[ModelAPIError], type[RunFailed]], ...] = (
    (ModelRateLimitError, ModelBusy),
    (ModelConnectionError, ModelUnreachable),
    (ModelUnavailableError, ModelUnavailable),
    (ModelServerError, ModelUnavailable),
)
"""Errors that are over sooner or later."""


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


def translate(error: Exception, label: str, began: bool, *, sent: str = "", base_url: str = "") -> CallFailed:
    """Translate an error of one call.

    Args:
        error: one of `FOREIGN`.
        label: `<provider>:<model>`, and where it is.
        began: something of the reply had come.
        sent: all text of the request; no word of it may come back in a log.
        base_url: where the model was asked.
    """
    detail = f"{label}: {_kind(error, base_url)}"
    if isinstance(error, ModelAPIError):
        detail += _code(error) + _said(error, sent)
    if (settled := _settled(error)) is not None:
        return CallFailed(settled, detail)
    passing = next((outcome for kind, outcome in _PASSING if isinstance(error, kind)), None)
    if passing is not None and not began:
        return CallFailed(passing, detail, again=True, retry_after=_retry_after(error))
    silent = isinstance(error, TimeoutError | httpx2.HTTPError) and not began
    return CallFailed(ModelUnavailable if silent else ModelCut, detail, broke=True)


def _settled(error: Exception) -> type[RunFailed] | None:
    """Return the outcome of an error that asking again does not mend, if it is one."""
    if isinstance(error, ModelAPIError) and _says_too_long(error):
        return ContextTooLong
    if isinstance(error, ModelHTTPError) and error.status_code in {404, 405}:
        return ModelNotFound
    for kind, outcome in _SETTLED:
        if isinstance(error, kind):
            return outcome
    if isinstance(error, ModelRequestRejectedError):
        return ModelRefused if _POLICY.search(_words_of(error)) else RequestNotTaken
    return None


def _retry_after(error: Exception) -> float | None:
    return error.retry_after if isinstance(error, ModelAPIError) else None


def _says_too_long(error: ModelAPIError) -> bool:
    if isinstance(error, ModelHTTPError) and error.status_code not in {400, 413, 422}:
        return False
    too_large = isinstance(error, ModelHTTPError) and error.status_code == 413
    return too_large or _TOO_LONG.search(_words_of(error).lower()) is not None


def _words_of(error: ModelAPIError) -> str:
    """Return code, type and message of an error, for a look at its words only."""
    return " ".join(filter(None, (error.provider_error_code, error.provider_error_type, _message_of(error))))


def _message_of(error: ModelAPIError) -> str:
    body = error.body
    inner = body.get("error", body) if isinstance(body, Mapping) else body
    found = inner.get("message") if isinstance(inner, Mapping) else inner
    return found if isinstance(found, str) else ""


def at_host(base_url: str) -> str:
    """Return where a model is asked, for the log: host and port, never a name or a password."""
    parts = urlsplit(base_url)
    return f" at {parts.hostname}{f':{parts.port}' if parts.port else ''}" if parts.hostname else ""


def _kind(error: Exception, base_url: str) -> str:
    """Name an error by what cannot hold a secret."""
    match error:
        case TimeoutError():
            return "nothing came for too long"
        case ModelHTTPError(status_code=status):
            return f"status {status}{_missing_version(base_url) if status in {404, 405} else ''}"
        case ModelConnectionError():
            return f"the connection failed in {error.phase or 'an unknown phase'}"
        case httpx2.HTTPError() | httpx2.StreamError():
            return f"the connection failed ({type(error).__name__})"
        case StreamBrokenError():
            hint = _missing_version(base_url) if isinstance(error, WrongAddressError) else ""
            return f"the stream could not be read: {error}{hint}"
        case _:
            return "the stream could not be read"


def _code(error: ModelAPIError) -> str:
    code = error.provider_error_code or error.provider_error_type
    return f" {code}" if code is not None and _CODE.fullmatch(code) and not looks_like_key(code) else ""


def _missing_version(base_url: str) -> str:
    return "" if re.search(r"/v\d", urlsplit(base_url).path) else "; is /v1 missing at the end of the base URL?"


def _said(error: ModelAPIError, sent: str) -> str:
    """Return the provider's own message; never where a key was refused, because such messages quote it."""
    if isinstance(error, ModelAuthenticationError) or not sent:
        return ""
    short = short_message(_message_of(error), sent)
    return f" ({short})" if short else ""
