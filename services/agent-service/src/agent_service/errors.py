"""The errors that end a run without an answer, and the error that a tool returns to the model.

Each error that ends a run names its `FailureReason`; `shared_models.requests.FAILURES` has the sentence for the person,
and `advice` says the rest. The detail is for operators. A provider's error body may quote keys or the conversation, so
a detail holds of it only the parts that `adapters/redaction` finds harmless.
"""

from typing import ClassVar

from shared_models.requests import FAILURES, FailureReason


class RunFailed(Exception):  # noqa: N818 - an outcome of a run, named as one
    """A run ends without an answer.

    Attributes:
        reason: the reason that is stored and published.
        advice: the explanation of an error that is given none.

    Args:
        detail: which model or limit, for operators; safe to log.
        explanation: sentences for the person that follow the notice of the reason.
    """

    reason: ClassVar[FailureReason] = FailureReason.INTERNAL
    advice: ClassVar[str] = ""

    def __init__(self, detail: str = "", *, explanation: str = "") -> None:
        notice = FAILURES[self.reason].notice
        super().__init__(f"{notice} ({detail})" if detail else notice)
        self.detail = detail
        self.explanation = explanation or self.advice


class ModelUnavailable(RunFailed):
    """No model answered."""

    reason = FailureReason.MODEL_UNAVAILABLE
    advice = "Try again in a moment."


class ModelUnreachable(ModelUnavailable):
    """No connection to the model's server was made, or it broke before the answer."""

    advice = "Its server cannot be reached. Try again in a moment."


class ModelBusy(ModelUnavailable):
    """The model's provider limits the rate of requests."""

    advice = "It has too many requests at the moment. Try again in a minute."


class QuotaSpent(ModelUnavailable):
    """The quota at the model's provider is used up."""

    advice = "The quota at its provider is used up. Please tell the people who run this service."


class KeyRefused(ModelUnavailable):
    """The model's provider refused the key of this service."""

    advice = "Its provider refused the key of this service. Please tell the people who run it."


class ModelNotFound(ModelUnavailable):
    """The model's server does not know the model, or is no model's server."""

    advice = "It is not where this service looks for it. Please tell the people who run it."


class RequestNotTaken(ModelUnavailable):
    """The model's server did not accept the request."""

    advice = "Its server did not accept the request. Please tell the people who run this service."


class ContextTooLong(RunFailed):
    """The conversation is longer than the model can read."""

    reason = FailureReason.CONTEXT_TOO_LONG
    advice = "Start a new one, or ask with less text."


class ModelRefused(RunFailed):
    """The model refused to answer."""

    reason = FailureReason.MODEL_REFUSED
    advice = "Try to ask in other words."


class NoAnswer(ModelRefused):
    """The model gave an empty answer."""

    advice = "It gave an empty answer. Try again, or ask in other words."


class ModelCut(RunFailed):
    """The model's answer broke off."""

    reason = FailureReason.MODEL_CUT
    advice = "Try again."


class OutOfTokens(ModelCut):
    """The model reached its length limit before it had an answer."""

    advice = "The model reached its length limit before it had an answer. Ask for less at once."


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
