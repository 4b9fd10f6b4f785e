"""How an answer is shown in a terminal: its text on stdout as it comes, and everything about it on stderr."""

from collections.abc import Iterable
from typing import Final, assert_never

from command_line.asking import AnswerPart, Begun, Ended, Restarted, Retrying, Text, ToolCall
from command_line.output import print_error, print_note, print_result

CUT: Final = {
    "length": "The answer was cut at the model's length limit.",
    "size": "The answer was cut: it is larger than Flotilla can carry.",
}
"""By the values of `shared_models.requests.Truncation`."""


def print_answer(parts: Iterable[AnswerPart], *, quiet: bool = False) -> Ended:
    """Print the parts of an answer as they come, or with `quiet` none of them, and return its end."""
    line_open = False
    for part in parts:
        match part:
            case Ended():
                if line_open:
                    print_result("")
                return part
            case Begun():
                continue
            case _ if quiet:
                continue
            case Text(text):
                print_result(text, end="")
                line_open = not text.endswith("\n") if text else line_open
            case ToolCall(tool):
                print_note(f"· {tool}")
            case Retrying():
                print_note("· the model is asked again")
            case Restarted():
                print_note("\n· the answer starts again")
            case _:
                assert_never(part)
    raise AssertionError("an answer ends with Ended")


def print_end(ended: Ended) -> None:
    """Print why there is no answer, or why it is not whole."""
    if ended.error is not None:
        print_error(f"{ended.status}: {ended.error}")
    elif ended.truncated is not None:
        print_note(CUT.get(ended.truncated, f"The answer was cut: {ended.truncated}."))
