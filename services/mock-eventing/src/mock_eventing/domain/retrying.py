"""The retry rules of Knative's data-plane contract: which response ends a delivery, and how long to wait for a retry.

The table is that of knative/specs, eventing/data-plane.md; 408 is added, because Knative's own senders retry it. The
schedule is `DeliverySpec`'s: the n-th retry waits n (linear) or 2^(n-1) (exponential) times `backoffDelay`, at most
`backoffMax`. After a 429 or 503 it waits as long as Retry-After says, at most `retryAfterMax`.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from mock_eventing.domain.triggers import DeliverySpec

RETRIED_4XX: Final = frozenset({404, 408, 409, 429})
"""The client errors that Knative retries."""
RETRY_AFTER_STATUSES: Final = frozenset({429, 503})
"""The statuses with which a Retry-After header counts."""
NO_ANSWER_CODE: Final = 500
"""The `knativeerrorcode` of a delivery without a response."""
MAX_ERROR_BYTES: Final = 1024
"""Bytes of a subscriber's response in `knativeerrordata`."""


@dataclass(frozen=True, slots=True)
class SubscriberResponse:
    """A subscriber's response to one attempt.

    Attributes:
        status: the HTTP status; None if there was no response.
        body: the beginning of the body; without a response, the reason why there is none.
        retry_after: the seconds of a Retry-After header.
    """

    status: int | None
    body: bytes = b""
    retry_after: float | None = None


class Verdict(Enum):
    """The meaning of one response for a delivery."""

    DELIVERED = auto()
    RETRY = auto()
    FAILED = auto()


def judge(status: int | None) -> Verdict:
    """Return the verdict on a status; None is a connection that failed or took too long."""
    if status is None or status in RETRIED_4XX or status >= 500:
        return Verdict.RETRY
    return Verdict.DELIVERED if 200 <= status < 300 else Verdict.FAILED


def pause_before(retry: int, delivery: DeliverySpec, response: SubscriberResponse, jitter: float) -> float:
    """Return the seconds to wait before a retry.

    Args:
        retry: the retry's number, from 1.
        delivery: the trigger's delivery settings.
        response: the response that is followed by the retry.
        jitter: a random number from 0 to 1. The pause is between a half and the whole of its bound, so that events that
            failed together are not retried together.
    """
    steps = float(retry) if delivery.backoff_policy == "linear" else 2.0 ** min(retry - 1, 60)
    longest = min(delivery.backoff_delay.total_seconds() * steps, delivery.backoff_max.total_seconds())
    pause = longest * (0.5 + jitter / 2)
    if response.status in RETRY_AFTER_STATUSES and response.retry_after is not None:
        return max(pause, min(response.retry_after, delivery.retry_after_max.total_seconds()))
    return pause
