"""What can end a run without an answer, and what a tool may say back to the model.

A docstring's first line is what the person is told; the detail is for operators. Providers quote keys and the
conversation in their errors, so of such a body only what `adapters/model_failures` finds harmless is in a detail.
"""

from typing import ClassVar

from shared_models.requests import FailureReason, Usage


class RunFailed(Exception):  # noqa: N818 - an outcome of a run, named as one
    """Something went wrong and no answer was made.

    Args:
        detail: which model or limit, for operators; safe to log.
    """

    reason: ClassVar[FailureReason] = FailureReason.INTERNAL

    def __init__(self, detail: str = "") -> None:
        super().__init__(f"{self.notice} ({detail})" if detail else self.notice)
        self.detail = detail
        self.usage = Usage()
        """What the run had used by then."""

    @property
    def notice(self) -> str:
        """The sentence that the person is told."""
        return (type(self).__doc__ or "").partition("\n")[0]


class ModelUnavailable(RunFailed):
    """The model did not answer. Try again in a moment."""

    reason = FailureReason.MODEL_UNAVAILABLE


class ModelUnreachable(ModelUnavailable):
    """The model's server cannot be reached. Try again in a moment."""


class ModelBusy(ModelUnavailable):
    """The model has too many requests at the moment. Try again in a minute."""


class QuotaSpent(ModelUnavailable):
    """The quota at the model's provider is used up. Please tell the people who run this service."""


class KeyRefused(ModelUnavailable):
    """The model's provider refused the key of this service. Please tell the people who run it."""


class ModelNotFound(ModelUnavailable):
    """The model is not where this service looks for it. Please tell the people who run it."""


class RequestNotTaken(ModelUnavailable):
    """The model's server did not accept the request. Please tell the people who run this service."""


class ContextTooLong(RunFailed):
    """This conversation is too long for the model. Start a new one, or ask with less text."""

    reason = FailureReason.CONTEXT_TOO_LONG


class ModelRefused(RunFailed):
    """The model would not answer this. Try to ask in other words."""

    reason = FailureReason.MODEL_REFUSED


class NoAnswer(ModelRefused):
    """The model gave an empty answer. Try again, or ask in other words."""


class ModelCut(RunFailed):
    """The model's answer broke off. Try again."""

    reason = FailureReason.MODEL_CUT


class OutOfTokens(ModelCut):
    """The model reached its length limit before it had an answer. Ask for less at once."""


class TooManySteps(RunFailed):
    """The agent took more steps than it may."""

    reason = FailureReason.TOO_MANY_STEPS


class UnknownAgent(RunFailed):
    """There is no such agent."""

    reason = FailureReason.UNKNOWN_AGENT


class Cancelled(RunFailed):
    """The request was cancelled."""

    reason = FailureReason.CANCELLED_BY_CALLER


class OutOfTime(RunFailed):
    """The request ran out of time."""

    reason = FailureReason.DEADLINE


class ToolFailed(Exception):  # noqa: N818 - what the model is told, not a fault of ours
    """A tool could not do what it was asked; the message goes back to the model, which may try otherwise."""
