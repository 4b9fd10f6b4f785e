"""Translates the library's errors of one model call into the errors of this service.

`translate` decides whether the same call may succeed later, whether the model may be called again after the other
models, and with which error the run fails if no model answers. The person is told what to do; the operator gets the
status, the host, the provider's code and, if it is safe, the provider's message: see `adapters/redaction`.
"""

import re
from collections.abc import Mapping
from enum import Enum, auto
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

PROVIDER_ERRORS = (
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
_PERMANENT_ERRORS: tuple[tuple[type[Exception], type[RunFailed]], ...] = (
    (ModelContextWindowExceededError, ContextTooLong),
    (ModelQuotaExceededError, QuotaSpent),
    (ModelAuthenticationError, KeyRefused),
    (ModelNotFoundError, ModelNotFound),
    (WrongAddressError, ModelNotFound),
)
"""Errors that a repeated call would raise again, with the error of the run for each."""

_TEMPORARY_ERRORS: tuple[tuple[type[ModelAPIError], type[RunFailed]], ...] = (
    (ModelRateLimitError, ModelBusy),
    (ModelConnectionError, ModelUnreachable),
    (ModelUnavailableError, ModelUnavailable),
    (ModelServerError, ModelUnavailable),
)
"""Errors after which a later call may succeed, with the error of the run for each."""


class NextCall(Enum):
    """The model that may be called after a failed call."""

    SAME_MODEL = auto()
    """The call failed before its first token, and the same call may succeed later."""
    OTHER_MODELS_FIRST = auto()
    """The reply had begun; the model may be called again after the other models."""
    OTHER_MODELS = auto()
    """The same model would fail again."""
    NONE = auto()
    """No other model should be called either."""


class CallFailed(Exception):  # noqa: N818 - private to the adapters; runs fail with `run_error`
    """One model call gave no reply.

    Args:
        run_error: the error of the run if no other model answers.
        detail: model and kind, safe to log.
        next_call: the model that may be called after this failure.
        retry_after: seconds the provider asked us to wait.
    """

    def __init__(
        self,
        run_error: type[RunFailed],
        detail: str,
        *,
        next_call: NextCall = NextCall.OTHER_MODELS,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.run_error = run_error
        self.detail = detail
        self.next_call = next_call
        self.retry_after = retry_after


def translate(error: Exception, label: str, began: bool, *, request_text: str = "", base_url: str = "") -> CallFailed:
    """Translate an error of one call.

    Args:
        error: one of `PROVIDER_ERRORS`.
        label: `<provider>:<model> at <host>`.
        began: something of the reply had come.
        request_text: all text of the request; no word of it may come back in a log.
        base_url: where the model was asked.
    """
    detail = f"{label}: {_describe(error, base_url)}"
    if isinstance(error, ModelAPIError):
        detail += _code(error) + _provider_message(error, request_text)
    if (permanent := _permanent_error(error)) is not None:
        return CallFailed(permanent, detail)
    temporary = next((run_error for kind, run_error in _TEMPORARY_ERRORS if isinstance(error, kind)), None)
    if temporary is not None and not began:
        return CallFailed(temporary, detail, next_call=NextCall.SAME_MODEL, retry_after=_retry_after(error))
    silent = isinstance(error, TimeoutError | httpx2.HTTPError) and not began
    run_error = ModelUnavailable if silent else ModelCut
    return CallFailed(run_error, detail, next_call=NextCall.OTHER_MODELS_FIRST)


def _permanent_error(error: Exception) -> type[RunFailed] | None:
    """Return the error of the run for a permanent error; None for any other error."""
    if isinstance(error, ModelAPIError) and _says_too_long(error):
        return ContextTooLong
    if isinstance(error, ModelHTTPError) and error.status_code in {404, 405}:
        return ModelNotFound
    for kind, run_error in _PERMANENT_ERRORS:
        if isinstance(error, kind):
            return run_error
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


def _describe(error: Exception, base_url: str) -> str:
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


def _provider_message(error: ModelAPIError, request_text: str) -> str:
    """Return the provider's own message; an empty text if the key was refused, because such messages quote the key."""
    if isinstance(error, ModelAuthenticationError) or not request_text:
        return ""
    short = short_message(_message_of(error), request_text)
    return f" ({short})" if short else ""
