"""Translates the library's errors of one model call into the errors of this service.

`translate` decides whether the same call may succeed later, whether the model may be called again after the other
models, and with which error the run fails if no model answers. The person is told what to do; the operator gets the
status, the host, the provider's code and, if it is safe, the provider's message: see `adapters/redaction`.
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
"""The errors that one call through pydantic-ai may raise because of the provider."""

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
"""Errors that a repeated call would raise again, with the error of the run for each."""

_PASSING: tuple[tuple[type[ModelAPIError], type[RunFailed]], ...] = (
    (ModelRateLimitError, ModelBusy),
    (ModelConnectionError, ModelUnreachable),
    (ModelUnavailableError, ModelUnavailable),
    (ModelServerError, ModelUnavailable),
)
"""Errors after which a later call may succeed, with the error of the run for each."""


class CallFailed(Exception):  # noqa: N818 - private to the adapters; runs fail with `outcome`
    """One model call gave no reply.

    Args:
        run_error: the error of the run if no other model answers.
        detail: model and kind, safe to log.
        may_retry: the call failed before its first token, and may succeed later.
        broke_off: the reply had begun; the model may be called again after the other models.
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
        label: `<provider>:<model> at <host>`.
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
    """Return the error of the run for a permanent error; None for any other error."""
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
    """Return the code, type and message of an error, in which only words are searched."""
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
    """Describe an error by the parts that cannot hold a secret."""
    match error:
        case TimeoutError():
            return "no byte came within the time limit"
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
    """Return the provider's own message; an empty text if the key was refused, because such messages quote the key."""
    if isinstance(error, ModelAuthenticationError) or not sent:
        return ""
    short = short_message(_message_of(error), sent)
    return f" ({short})" if short else ""
