"""Call a tool for a model, whose call may name no tool or carry unfit arguments.

A mistake of the model goes back to it as a failed result. A bug in this service raises.
"""

from collections.abc import Mapping
from time import monotonic

import jsonschema_rs
from pydantic_ai.messages import ToolCallPart, ToolReturnPart

from agent_service.domain.history import MESSAGE_ID, plain
from agent_service.domain.transcript import MILLISECONDS
from agent_service.errors import ToolFailed
from agent_service.ports import Tool
from shared_models.ids import new_id

MAX_ERROR = 1000
"""The characters of an error that a model is sent."""


async def call_tool(tools: Mapping[str, Tool], call: ToolCallPart) -> ToolReturnPart:
    """Run one call and return its result, or a failed result with the reason."""
    began = monotonic()
    try:
        tool = _find(tools, call.tool_name)
        content = await tool.call(_arguments(tool, call))
    except ToolFailed as failure:
        return _result(call, str(failure)[:MAX_ERROR], monotonic() - began, failed=True)
    return _result(call, content, monotonic() - began)


def _find(tools: Mapping[str, Tool], name: str) -> Tool:
    if name not in tools:
        known = ", ".join(sorted(tools)) or "none"
        raise ToolFailed(f"There is no tool named {name[:80]!r}. The tools are: {known}.")
    return tools[name]


def _arguments(tool: Tool, call: ToolCallPart) -> dict[str, object]:
    try:
        arguments: dict[str, object] = call.args_as_dict(raise_if_invalid=True)
    except (ValueError, AssertionError):
        raise ToolFailed(f"The arguments of {tool.name} are not a JSON object.") from None
    validator = jsonschema_rs.validator_for(
        dict(tool.parameters), pattern_options=jsonschema_rs.RegexOptions(), retriever=_no_remote_schema
    )
    faults = [
        f"/{'/'.join(map(str, error.instance_path))}: {error.message}" for error in validator.iter_errors(arguments)
    ]
    if faults:
        raise ToolFailed(f"The arguments of {tool.name} do not fit its schema. {'; '.join(faults)}")
    return arguments


def _no_remote_schema(uri: str) -> bool:
    msg = f"a tool's schema must not refer to another document; this one refers to {uri[:200]}"
    raise ValueError(msg)


def _result(call: ToolCallPart, content: str, seconds: float, *, failed: bool = False) -> ToolReturnPart:
    return ToolReturnPart(
        tool_name=call.tool_name,
        content=plain(content),
        tool_call_id=call.tool_call_id,
        metadata={MESSAGE_ID: str(new_id()), MILLISECONDS: round(seconds * 1000)},
        outcome="failed" if failed else "success",
    )
