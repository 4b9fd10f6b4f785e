"""Writes docs/reference from the code: OpenAPI, AsyncAPI, the page of events, and JSON Schemas.

Run it after a change to `shared_models` or to a route: `.venv/bin/python -m tools.generate`. A test fails while the
committed files differ from the generated ones, so a review sees every change of a contract.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from fleet.openapi import openapi
from shared_models.agents import Agent
from shared_models.catalog import EVENTS
from shared_models.dead_letters import DeadLetter, DeadLetterPage
from shared_models.envelope import Envelope
from shared_models.problems import ProblemBody, Problems
from shared_models.requests import Accepted, NewRequest, RequestList, RequestView
from tools.events_reference import asyncapi, page

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

Json = dict[str, object]


def generated() -> dict[str, str]:
    """Return the text of every generated file, by its path under docs/reference."""
    files = {"openapi.json": _dump(openapi()), "asyncapi.json": _dump(asyncapi(_event())), "events.md": page()}
    return files | {f"schemas/{name}.json": _text(name, schema) for name, schema in _schemas()}


def differences(folder: Path, wanted: Mapping[str, str]) -> list[str]:
    """Return a line for each file in which a folder differs from the wanted content."""
    present = {path.relative_to(folder).as_posix(): path.read_text() for path in _files(folder)}
    lines = [f"{name} is missing" for name in wanted.keys() - present.keys()]
    lines += [f"{name} is not generated any more" for name in present.keys() - wanted.keys()]
    lines += [f"{name} differs" for name in wanted.keys() & present.keys() if wanted[name] != present[name]]
    return sorted(lines)


def write(folder: Path, wanted: Mapping[str, str]) -> None:
    for path in list(_files(folder)):
        if path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix in {".json", ".md"})


def _schemas() -> Iterator[tuple[str, Json]]:
    bodies: dict[str, type[BaseModel]] = {
        "agent": Agent,
        "new-request": NewRequest,
        "accepted": Accepted,
        "request": RequestView,
        "request-list": RequestList,
        "dead-letter": DeadLetter,
        "dead-letter-page": DeadLetterPage,
        **{name: event.data for name, event in EVENTS.items()},
    }
    for name, model in bodies.items():
        yield name, model.model_json_schema()
    yield "event", _event()
    yield "frame", _frame()
    yield "problem", _problem()


def _dump(document: Mapping[str, object]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _text(name: str, schema: Json) -> str:
    return _dump({"$schema": DIALECT, "$id": f"urn:flotilla:schema:{name}", **schema})


def _event() -> Json:
    """Return the schema of an event's attributes in transport: strings, absent where unset.

    The data of an event has a schema of its own.
    """
    schema = Envelope.model_json_schema()
    properties = {name: _present(field) for name, field in schema["properties"].items() if name != "data"}
    properties["type"] = {"enum": sorted(EVENTS)}
    properties["turn"] = {"type": "string", "pattern": "^[1-9][0-9]*$"}
    required = [name for name in schema["required"] if name != "data"]
    return {**schema, "properties": properties, "required": required}


def _present(field: Json) -> Json:
    """Return the schema of an optional field that is present."""
    options = field.get("anyOf")
    if not isinstance(options, list):
        return field
    (option,) = (option for option in options if option != {"type": "null"})
    return {**option, "title": field["title"]}


def _frame() -> Json:
    """Return the schema of the fields that every frame has beside AG-UI's own for its type."""
    count = {"type": "integer", "minimum": 1}
    return {
        "title": "Frame",
        "description": "One AG-UI 1.0 event of a run; the cursor is <epoch>-<sequence>.",
        "type": "object",
        "required": ["type", "metadata"],
        "properties": {
            "type": {"type": "string", "pattern": "^[A-Z][A-Z_]*$"},
            "metadata": {
                "type": "object",
                "required": ["execution_id", "epoch", "sequence"],
                "additionalProperties": False,
                "properties": {
                    "execution_id": {"type": "string", "format": "uuid"},
                    "epoch": count,
                    "sequence": {"type": "integer", "minimum": 0},
                },
            },
        },
    }


def _problem() -> Json:
    """Return the schema of every error's body (RFC 9457), with the types and statuses of the catalogue."""
    schema = ProblemBody.model_json_schema()
    types = {"enum": sorted(kind.value.uri for kind in Problems)}
    statuses = {"enum": sorted({kind.value.status for kind in Problems})}
    return {**schema, "properties": {**schema["properties"], "type": types, "status": statuses}}


def main() -> None:
    wanted = generated()
    changed = differences(REFERENCE, wanted)
    write(REFERENCE, wanted)
    sys.stdout.write("".join(f"{change}; written\n" for change in changed) or "nothing has changed\n")


if __name__ == "__main__":
    main()
