from datetime import UTC, datetime

import pytest
from pydantic_ai.messages import ToolCallPart

from agent_service.adapters.tools import Toolbox
from agent_service.ports import Tool
from agent_service.usecases.call_tool import MAX_ERROR, call_tool

BOX = Toolbox(clock=lambda: datetime(2026, 11, 21, 12, 37, tzinfo=UTC))
TOOLS: dict[str, Tool] = {tool.name: tool for tool in BOX.pick(BOX.names)}


async def call(tool: str, args: str | dict[str, object] | None) -> tuple[str, str]:
    result = await call_tool(TOOLS, ToolCallPart(tool_name=tool, args=args, tool_call_id="c1"))
    assert result.tool_call_id == "c1"
    return result.outcome, str(result.content)


@pytest.mark.parametrize(
    ("args", "content"),
    [
        ({}, "Saturday, 21 November 2026, 12:37 (UTC)"),
        (None, "Saturday, 21 November 2026, 12:37 (UTC)"),
        ('{"timezone": "Europe/Berlin"}', "Saturday, 21 November 2026, 13:37 (Europe/Berlin)"),
        ({"timezone": "Pacific/Auckland"}, "Sunday, 22 November 2026, 01:37 (Pacific/Auckland)"),
    ],
)
async def test_current_time_is_given_in_the_requested_zone(args: str | dict[str, object] | None, content: str) -> None:
    assert await call("current-time", args) == ("success", content)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "/etc/passwd", "", "a\0b"])
async def test_unknown_zone_goes_back_to_the_model(zone: str) -> None:
    outcome, content = await call("current-time", {"timezone": zone})

    assert outcome == "failed"
    assert "is not an IANA time zone" in content


async def test_a_sum_is_worked_out() -> None:
    assert await call("calculator", {"expression": "6 * 7"}) == ("success", "42")


@pytest.mark.parametrize(
    ("tool", "args", "says"),
    [
        ("calculator", {"expression": "six times seven"}, "expected numbers"),
        ("calculator", {}, '"expression" is a required property'),
        ("calculator", {"expression": 42}, '/expression: 42 is not of type "string"'),
        ("calculator", {"expression": "1", "then": "rm"}, "Additional properties are not allowed"),
        ("calculator", "{not json", "The arguments of calculator are not a JSON object."),
        ("calculator", "[1]", "The arguments of calculator are not a JSON object."),
        ("rocket", {}, "There is no tool named 'rocket'. The tools are: calculator, current-time."),
    ],
)
async def test_a_wrong_call_is_a_result_and_never_a_crash(tool: str, args: str | dict[str, object], says: str) -> None:
    outcome, content = await call(tool, args)

    assert outcome == "failed"
    assert says in content


async def test_error_for_a_model_is_short() -> None:
    outcome, content = await call("calculator", {"expression": "1" * 100_000})

    assert outcome == "failed"
    assert len(content) <= MAX_ERROR


async def test_a_schema_cannot_fetch_another_document() -> None:
    tool = Tool("far", "", {"$ref": "http://127.0.0.1:9/schema.json"}, TOOLS["calculator"].call)

    with pytest.raises(ValueError, match="must not refer to another document"):
        await call_tool({"far": tool}, ToolCallPart(tool_name="far", args={}))
