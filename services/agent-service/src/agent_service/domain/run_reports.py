"""Reports of runs for operators: states, tries, epochs, and the time of each step; never what anybody said. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from pydantic_ai.messages import ModelMessage, ModelResponse, ToolReturnPart

from agent_service.domain.transcript import milliseconds_of
from shared_models.requests import FailureReason, OpenModel, Status, Usage


class StepReport(OpenModel):
    """One finished step of a run.

    Attributes:
        key: `model:<n>` or `tool:<call id>`.
        name: of the model or of the tool.
        epoch: the epoch of the worker that finished it.
        started_at: when it began, as far as the steps before it tell.
        failed: the tool could not do its work.
        input_tokens, output_tokens, calls: of a model call, its tokens and the number of tools that it calls.
    """

    key: str
    kind: Literal["model", "tool"]
    name: str
    epoch: int
    started_at: datetime
    finished_at: datetime
    failed: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None
    calls: int | None = None


class RunSummary(OpenModel):
    """A run in a list of runs.

    Attributes:
        tries: starts since it last finished a step.
        epoch: starts in all; a run that never lost its worker has one.
        reason: why it ended without an answer.
        due: whether its last frame is still to be appended to its stream.
    """

    request_id: UUID
    session_id: UUID
    turn: int
    status: Status
    agent: str | None = None
    revision: str | None = None
    tries: int
    epoch: int
    reason: FailureReason | None = None
    usage: Usage | None = None
    due: bool = False
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime


class RunReport(RunSummary):
    """A run with its steps, in the order in which they finished."""

    steps: tuple[StepReport, ...] = ()


class RunPage(OpenModel):
    """A page of runs; `next` is the `before` of the next page."""

    runs: tuple[RunSummary, ...]
    next: UUID | None = None


@dataclass(frozen=True, slots=True)
class StoredStep:
    """A step as the journal has it."""

    key: str
    epoch: int
    message: ModelMessage
    finished_at: datetime


def step_reports(steps: Sequence[StoredStep], started_at: datetime) -> tuple[StepReport, ...]:
    """Return reports of steps, the first finished first.

    A model call begins when the step before it ends, and in a new epoch with its own first token, because nothing
    tells when the new worker began. A tool begins as long before its end as it took, else with the end of its call.
    """
    reports: list[StepReport] = []
    epoch, last, called = 0, started_at, started_at
    for step in steps:
        if isinstance(step.message, ModelResponse):
            began = step.message.timestamp if epoch not in {0, step.epoch} else last
            called = step.finished_at
            reports.append(_model_report(step, step.message, began))
        elif isinstance(result := step.message.parts[0], ToolReturnPart):
            took = milliseconds_of(result)
            began = called if took is None else step.finished_at - timedelta(milliseconds=took)
            reports.append(_tool_report(step, result, began))
        epoch, last = step.epoch, max(last, step.finished_at)
    return tuple(reports)


def _model_report(step: StoredStep, response: ModelResponse, began: datetime) -> StepReport:
    return StepReport(
        key=step.key,
        kind="model",
        name=response.model_name or "model",
        epoch=step.epoch,
        started_at=min(began, step.finished_at),
        finished_at=step.finished_at,
        input_tokens=response.usage.input_tokens,
        output_tokens=response.usage.output_tokens,
        calls=len(response.tool_calls),
    )


def _tool_report(step: StoredStep, result: ToolReturnPart, began: datetime) -> StepReport:
    return StepReport(
        key=step.key,
        kind="tool",
        name=result.tool_name,
        epoch=step.epoch,
        started_at=min(began, step.finished_at),
        finished_at=step.finished_at,
        failed=result.outcome != "success",
    )
