"""How what is expected is compared with what came, and how texts get their values. Pure."""

import json
import re
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

_PLACE = re.compile(r"\$\{(\w+)\}")


def fill(value: JsonValue, values: Mapping[str, JsonValue]) -> JsonValue:
    """Put values in place of each `${name}`; a text that is nothing else becomes the value, whatever its type.

    Raises:
        AssertionError: nothing has that name.
    """
    if isinstance(value, str):
        if (whole := _PLACE.fullmatch(value)) is not None:
            return _known(whole[1], values)
        return _PLACE.sub(lambda place: str(_known(place[1], values)), value)
    if isinstance(value, list):
        return [fill(inner, values) for inner in value]
    if isinstance(value, dict):
        return {fill_text(name, values): fill(inner, values) for name, inner in value.items()}
    return value


def fill_text(text: str, values: Mapping[str, JsonValue]) -> str:
    return str(fill(text, values))


def _known(name: str, values: Mapping[str, JsonValue]) -> JsonValue:
    assert name in values, f"nothing is called {name}; known are {', '.join(sorted(values))}"
    return values[name]


def differences(expected: JsonValue, found: JsonValue, where: str = "") -> Iterator[str]:
    """Say where `found` is not as expected; `scenario` tells the rules."""
    match expected:
        case dict():
            yield from _object_differences(expected, found, where)
        case list():
            yield from _list_differences(expected, found, where)
        case str() if expected.startswith("re:"):
            if found is None or not re.fullmatch(expected[3:], str(found), re.DOTALL):
                yield f"{where or '/'}: expected to match {expected[3:]!r}, and got {_shown(found)}"
        case _:
            if expected != found or type(expected) is not type(found):
                yield f"{where or '/'}: expected {_shown(expected)}, and got {_shown(found)}"


def _object_differences(expected: dict[str, JsonValue], found: JsonValue, where: str) -> Iterator[str]:
    if not isinstance(found, dict):
        yield f"{where or '/'}: expected an object, and got {_shown(found)}"
        return
    for name, value in expected.items():
        yield from differences(value, found.get(name), f"{where}/{name}")


def _list_differences(expected: list[JsonValue], found: JsonValue, where: str) -> Iterator[str]:
    if not isinstance(found, list) or len(found) != len(expected):
        count = f"{len(found)} entries" if isinstance(found, list) else _shown(found)
        yield f"{where or '/'}: expected a list of {len(expected)}, and got {count}"
        return
    for number, (value, inner) in enumerate(zip(expected, found, strict=True)):
        yield from differences(value, inner, f"{where}/{number}")


def at_pointer(document: JsonValue, pointer: str) -> JsonValue:
    """Return what a JSON Pointer names.

    Raises:
        AssertionError: there is nothing.
    """
    here = document
    for step in pointer.split("/")[1:]:
        if isinstance(here, dict) and step in here:
            here = here[step]
        elif isinstance(here, list) and step.isdecimal() and int(step) < len(here):
            here = here[int(step)]
        else:
            raise AssertionError(f"there is no {pointer} in {_shown(document)}")
    return here


def _shown(value: JsonValue) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]}…"
