"""Reports of runs: when each step began, as far as the journal tells."""

from datetime import UTC, datetime, timedelta

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart

from agent_service.domain.run_reports import StoredStep, step_reports
from agent_service.domain.transcript import MILLISECONDS

BEGAN = datetime(2026, 11, 30, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def calls(*names: str) -> ModelResponse:
    return ModelResponse(parts=[ToolCallPart(name, {}, name) for name in names], model_name="gpt", timestamp=at(0.5))


def result(name: str, milliseconds: int | None, *, failed: bool = False) -> ModelRequest:
    metadata = None if milliseconds is None else {MILLISECONDS: milliseconds}
    part = ToolReturnPart(name, "x", name, metadata=metadata, outcome="failed" if failed else "success")
    return ModelRequest(parts=[part])


def seconds(moment: datetime) -> float:
    return (moment - BEGAN).total_seconds()


def spans(*steps: tuple[str, int, ModelMessage, float]) -> list[tuple[str, float, float]]:
    stored = [StoredStep(key, epoch, message, at(end)) for key, epoch, message, end in steps]
    return [(one.name, seconds(one.started_at), seconds(one.finished_at)) for one in step_reports(stored, BEGAN)]


def test_steps_follow_each_other_and_tools_run_side_by_side() -> None:
    assert spans(
        ("model:1", 1, calls("quick", "slow"), 2.0),
        ("tool:quick", 1, result("quick", 100), 2.1),
        ("tool:slow", 1, result("slow", 1500), 3.5),
        ("model:2", 1, ModelResponse(parts=[TextPart("done")], model_name="gpt"), 4.0),
    ) == [("gpt", 0.0, 2.0), ("quick", 2.0, 2.1), ("slow", 2.0, 3.5), ("gpt", 3.5, 4.0)]


def test_first_step_of_a_new_epoch_does_not_begin_before_its_worker() -> None:
    answer = ModelResponse(parts=[TextPart("done")], model_name="gpt", timestamp=at(9.0))
    assert spans(("model:1", 1, calls("tool"), 2.0), ("model:2", 2, answer, 9.5)) == [
        ("gpt", 0.0, 2.0),
        ("gpt", 9.0, 9.5),
    ]


def test_tool_whose_time_is_not_known_begins_with_the_end_of_its_call() -> None:
    assert spans(("model:1", 1, calls("old"), 2.0), ("tool:old", 1, result("old", None), 2.5))[1] == ("old", 2.0, 2.5)


def test_reports_hold_tokens_and_failures_and_no_words() -> None:
    steps = [
        StoredStep("model:1", 1, calls("a", "b"), at(1)),
        StoredStep("tool:a", 1, result("a", 5, failed=True), at(2)),
    ]
    model, tool = step_reports(steps, BEGAN)
    assert (model.kind, model.calls, model.failed) == ("model", 2, False)
    assert (tool.kind, tool.failed) == ("tool", True)
    assert "content" not in model.model_dump()
