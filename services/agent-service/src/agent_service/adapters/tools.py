"""The built-in tools, which only read and reach nothing outside, so that agents may call them in place.

An agent names them in `spec.tools`. A tool that changes anything, or that reaches an address a model chose, is an
action and does not belong here.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agent_service.adapters.arithmetic import MAX_LENGTH, calculate
from agent_service.errors import ToolFailed
from agent_service.ports import Tool


class Toolbox:
    """The built-in tools by name.

    Args:
        clock: returns the current time, with its zone.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._tools = {tool.name: tool for tool in (_current_time(clock), _calculator())}

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._tools)

    def pick(self, names: Iterable[str]) -> tuple[Tool, ...]:
        """Return the tools that an agent names; `adapters/agent_files` has checked that they exist."""
        return tuple(self._tools[name] for name in names)


def _current_time(clock: Callable[[], datetime]) -> Tool:
    async def call(arguments: Mapping[str, object]) -> str:
        name = str(arguments.get("timezone", "UTC"))
        try:
            zone = ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ToolFailed(f"{name[:64]!r} is not an IANA time zone such as Europe/Berlin.") from None
        now = clock().astimezone(zone)
        return f"{now:%A}, {now.day} {now:%B %Y}, {now:%H:%M} ({name})"

    return Tool(
        name="current-time",
        description="Tells the current date and time, in UTC or in a given time zone.",
        parameters={
            "type": "object",
            "properties": {
                "timezone": {"type": "string", "maxLength": 64, "description": "IANA name, such as Europe/Berlin"}
            },
            "additionalProperties": False,
        },
        call=call,
    )


def _calculator() -> Tool:
    async def call(arguments: Mapping[str, object]) -> str:
        try:
            return calculate(str(arguments["expression"]))
        except ValueError as error:
            raise ToolFailed(str(error)) from None

    return Tool(
        name="calculator",
        description="Works out an arithmetic expression exactly. Use it rather than calculating yourself.",
        parameters={
            "type": "object",
            "properties": {
                "expression": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MAX_LENGTH,
                    "description": "numbers, + - * / // % ** and parentheses, such as (2 + 3) * 4",
                }
            },
            "required": ["expression"],
            "additionalProperties": False,
        },
        call=call,
    )
