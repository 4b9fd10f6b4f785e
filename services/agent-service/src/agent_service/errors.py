"""The errors that end a run without an answer, and the error that a tool returns to the model.

Each error that ends a run names its `FailureReason`; `shared_models.requests.FAILURES` has the sentence for the person.
The detail is for operators. Neither ever holds text of a provider's error body: it may quote keys or the conversation.
"""

from typing import ClassVar

from shared_models.requests import FAILURES, FailureReason


class RunFailed(Exception):  # noqa: N818 - an outcome of a run, named as one
    """A run ends without an answer.

    Args:
        detail: which model or limit, for operators; safe to log.
        explanation: a sentence for the person that follows the notice of the reason.
    """

    reason: ClassVar[FailureReason] = FailureReason.INTERNAL

    def __init__(self, detail: str = "", *, explanation: str = "") -> None:
        notice = FAILURES[self.reason].notice
        super().__init__(f"{notice} ({detail})" if detail else notice)
        self.detail = detail
        self.explanation = explanation


class ModelUnavailable(RunFailed):
    """No model answered."""

    reason = FailureReason.MODEL_UNAVAILABLE


class ModelRefused(RunFailed):
    """The model refused to answer."""

    reason = FailureReason.MODEL_REFUSED


class ModelCut(RunFailed):
    """The model's answer broke off."""

    reason = FailureReason.MODEL_CUT


class TooManySteps(RunFailed):
    """The agent used all its steps and has no answer."""

    reason = FailureReason.TOO_MANY_STEPS


class UnknownAgent(RunFailed):
    """The request names an agent that no file defines."""

    reason = FailureReason.UNKNOWN_AGENT


class Cancelled(RunFailed):
    """The caller cancelled the request."""

    reason = FailureReason.CANCELLED_BY_CALLER


class OutOfTime(RunFailed):
    """The request's deadline passed, or the run's active time is used up."""

    reason = FailureReason.DEADLINE


class SessionDeleted(RunFailed):
    """The session of the run was deleted."""

    reason = FailureReason.SESSION_DELETED


class ToolFailed(Exception):  # noqa: N818 - a result for the model, not a fault of this service
    """A tool could not do its work; the message goes back to the model, which may try otherwise."""
