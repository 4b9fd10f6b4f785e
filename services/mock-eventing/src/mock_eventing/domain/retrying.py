"""When a delivery is done, when it is tried again and when it is given up: Knative's data-plane contract as a function.

The table is the contract's (knative/specs, eventing/data-plane.md), with 408 as Knative's own senders have it. The
schedule is `DeliverySpec`'s: the n-th retry waits n times `backoffDelay` (linear), or 2 to the n-1 times (exponential),
at most `backoffMax`, or as long as a 429 or 503 asks for in Retry-After, at most `retryAfterMax`.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from mock_eventing.domain.triggers import Delivery

RETRIED: Final = frozenset({404, 408, 409, 429})
"""Of the 4xx; Knative retries no other."""
ASKED: Final = frozenset({429, 503})
"""Answers whose Retry-After counts."""
UNANSWERED: Final = 500
"""The code that Knative gives to a delivery that brought no answer."""
MAX_ERROR_BYTES: Final = 1024
"""Of a subscriber's answer in `knativeerrordata`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a subscriber answered.

    Attributes:
        status: its HTTP status; None where there was no answer.
        body: the beginning of it; without an answer, why there is none.
        retry_after: seconds it asked us to wait.
    """

    status: int | None
    body: bytes = b""
    retry_after: float | None = None


class Verdict(Enum):
    """What one answer means for a delivery."""

    DONE = auto()
    AGAIN = auto()
    OVER = auto()


def judge(status: int | None) -> Verdict:
    """Return what a status means; None is a connection that failed or took too long."""
    if status is None or status in RETRIED or status >= 500:
        return Verdict.AGAIN
    return Verdict.DONE if 200 <= status < 300 else Verdict.OVER


def pause_before(retry: int, delivery: Delivery, answer: Answer, spread: float) -> float:
    """Return the seconds to wait before a retry.

    Args:
        retry: its number, from 1.
        delivery: the trigger's.
        answer: the one that makes it necessary.
        spread: a random number from 0 to 1: the pause is between a half and the whole of the bound, so that events that
            failed together do not come back together.
    """
    steps = float(retry) if delivery.backoff_policy == "linear" else 2.0 ** min(retry - 1, 60)
    longest = min(delivery.backoff_delay.total_seconds() * steps, delivery.backoff_max.total_seconds())
    pause = longest * (0.5 + spread / 2)
    if answer.status in ASKED and answer.retry_after is not None:
        return max(pause, min(answer.retry_after, delivery.retry_after_max.total_seconds()))
    return pause
