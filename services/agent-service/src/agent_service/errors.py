"""What can end a run without an answer, and what a tool may say back to the model.

A docstring's first line is what the person is told; the detail is for operators. Neither ever holds text of a
provider's error body, which may quote keys or the conversation.
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
    """The model did not answer."""

    reason = FailureReason.MODEL_UNAVAILABLE


class ModelRefused(RunFailed):
    """The model would not answer this."""

    reason = FailureReason.MODEL_REFUSED


class ModelCut(RunFailed):
    """The model's answer broke off."""

    reason = FailureReason.MODEL_CUT


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
