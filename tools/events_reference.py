"""Describes every event of the catalogue: an AsyncAPI 3 document for programs, and a page for people.

`tools.generate` writes both. AsyncAPI's words are used as its specification has them: a channel is a topic, an
operation is what one service does with one type of event.
"""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from shared_models.catalog import EVENTS, REQUEST_CREATED, TOPICS, EventType
from shared_models.envelope import MAX_DATA, Envelope, EventContext, new_event
from shared_models.requests import Principal, RequestCreated

type Json = dict[str, object]

VERSION: Final = "1"
"""The version of the set of events; each type has its own version in its name."""


def asyncapi(attributes: Json) -> Json:
    """Return the AsyncAPI 3.0 document of all events.

    Args:
        attributes: the schema of an event's attributes, without a transport's prefix.
    """
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Flotilla events",
            "version": VERSION,
            "description": "CloudEvents 1.0 between Flotilla's services: at least once, in no promised order.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {"host": "kafka:9092", "protocol": "kafka", "description": "FLOTILLA_BUS_URL=kafka://…"},
            "knative": {"host": "broker-ingress", "protocol": "http", "description": "FLOTILLA_BUS_URL=http://…"},
        },
        "channels": {topic: _channel(topic) for topic in sorted(TOPICS)},
        "operations": dict(_operations()),
        "components": {
            "messages": {event.name: _message(event) for event in EVENTS.values()},
            "messageTraits": {
                "kafka": {"headers": _prefixed(attributes, "ce_"), "correlationId": _correlation("ce_")},
            },
            "schemas": _schemas([event.data for event in EVENTS.values()]),
        },
    }


def _channel(topic: str) -> Json:
    names = [event.name for event in EVENTS.values() if event.topic == topic]
    return {
        "address": topic,
        "description": f"Events of {_listed(_services(topic))}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"kafka": {"topic": topic, "bindingVersion": "0.5.0"}},
    }


def _services(topic: str) -> frozenset[str]:
    return frozenset(name for event in EVENTS.values() if event.topic == topic for name in event.producers)


def _operations() -> Iterator[tuple[str, Json]]:
    for event in EVENTS.values():
        actions = [("send", service) for service in sorted(event.producers)]
        actions += [("receive", service) for service in sorted(event.consumers)]
        for action, service in actions:
            yield (
                f"{service}.{action}.{event.name}",
                {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{event.topic}"},
                    "summary": f"{service} {'writes' if action == 'send' else 'reads'} {event.name}",
                    "messages": [{"$ref": f"#/channels/{event.topic}/messages/{event.name}"}],
                },
            )


def _message(event: EventType) -> Json:
    return {
        "name": event.name,
        "title": event.data.__name__,
        "summary": _meaning(event),
        "contentType": "application/json",
        "traits": [{"$ref": "#/components/messageTraits/kafka"}],
        "payload": {"$ref": f"#/components/schemas/{event.data.__name__}"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": f"The {event.key}'s id."},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _prefixed(attributes: Json, prefix: str) -> Json:
    """Return the schema of the attributes as a transport's headers; only the content type has no prefix."""
    properties, required = attributes["properties"], attributes["required"]
    assert isinstance(properties, dict)
    assert isinstance(required, list)

    def named(name: str) -> str:
        return "content-type" if name == "datacontenttype" else f"{prefix}{name}"

    return {
        "type": "object",
        "properties": {named(name): field for name, field in properties.items()},
        "required": [named(name) for name in required],
    }


def _correlation(prefix: str) -> Json:
    return {"location": f"$message.header#/{prefix}correlationid", "description": "The request everything belongs to."}


def _schemas(models: Sequence[type[BaseModel]]) -> Json:
    """Return the schemas of models and of their parts, by name."""
    _, document = models_json_schema(
        [(model, "serialization") for model in models], ref_template="#/components/schemas/{model}"
    )
    schemas = document["$defs"]
    assert isinstance(schemas, dict)
    return schemas


def page() -> str:
    """Return the page of events for people, as Markdown."""
    schemas = _schemas([event.data for event in EVENTS.values()])
    parts = [_INTRODUCTION, _overview(), _sample(), "## Attributes\n", _attributes()]
    parts += [_section(event, schemas) for event in EVENTS.values()]
    parts += ["## Parts of the data\n"]
    whole = {event.data.__name__ for event in EVENTS.values()}
    parts += [_part(name, schema) for name, schema in schemas.items() if name not in whole]
    return "\n".join(parts)


_INTRODUCTION: Final = f"""# Events

`python -m tools.generate` makes this page from `shared_models.catalog`; a test fails while they differ. For programs:
[asyncapi.json](asyncapi.json), and a JSON Schema of each event's data in [schemas](schemas).

Services exchange facts as CloudEvents 1.0, in binary mode. Over Kafka, attributes are headers that begin with `ce_`,
and the key is the session; over a Knative broker they begin with `ce-`. An event may come more than once and in any
order. `source` and `id` identify it for ever, and a consumer's inbox makes its effect happen once. Data is JSON of at
most {MAX_DATA // 1024} KiB. A consumer ignores fields it does not know, and refuses an event whose `source` may not
write it.
"""


def _overview() -> str:
    rows = [
        f"| [`{event.name}`](#{event.name.replace('.', '')}) "
        f"| {_listed(event.producers)} | {_listed(event.consumers)} | `{event.topic}` |"
        for event in EVENTS.values()
    ]
    return "\n".join(["| type | from | to | topic |", "|---|---|---|---|", *rows, ""])


def _sample() -> str:
    """Return an example of an event in structured JSON; transports use binary mode."""
    at = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
    number = "0198f3c0-0000-7000-8000-00000000000"
    person = Principal(issuer="https://id.example.org", subject="ada", tenant="acme", credential="web", channel="web")
    context = EventContext(UUID(f"{number}1"), UUID(f"{number}2"), "acme", turn=1, expires=at)
    event = new_event("request-manager", REQUEST_CREATED, RequestCreated(content="Hello!", principal=person), context)
    fixed = event.model_copy(update={"id": f"{number}3", "time": at})
    shown = {**fixed.attributes(), "data": json.loads(fixed.data)}
    return f"```json\n{json.dumps(shown, indent=2)}\n```\n"


def _attributes() -> str:
    described = _described(Envelope.__doc__)
    rows = [
        f"| `{name}` | {'yes' if field.is_required() or name in {'specversion', 'datacontenttype'} else 'no'} "
        f"| {described.get(name, '')} |"
        for name, field in Envelope.model_fields.items()
        if name != "data"
    ]
    return "\n".join(["| attribute | always | meaning |", "|---|---|---|", *rows, ""])


def _section(event: EventType, schemas: Mapping[str, object]) -> str:
    head = f"## {event.name}\n\n{_meaning(event)}\n\nFrom {_listed(event.producers)}; to {_listed(event.consumers)}.\n"
    return f"{head}\n{_fields('data', schemas[event.data.__name__])}"


def _part(name: str, schema: object) -> str:
    assert isinstance(schema, dict)
    description = str(schema.get("description", "")).partition("\n\n")[0].replace("\n", " ")
    return f"### {name}\n\n{description}\n\n{_fields('field', schema)}"


def _fields(heading: str, schema: object) -> str:
    """Return the table of an object's fields, or the values of an enumeration."""
    assert isinstance(schema, dict)
    if "enum" in schema:
        return f"One of {', '.join(f'`{value}`' for value in schema['enum'])}.\n"
    described = _described(schema.get("description"))
    rows = [
        f"| `{name}` | {_kind(field)} | {'yes' if name in schema.get('required', ()) else 'no'} "
        f"| {described.get(name, '')} |"
        for name, field in schema["properties"].items()
    ]
    return "\n".join([f"| {heading} | type | always | meaning |", "|---|---|---|---|", *rows, ""])


def _kind(field: Mapping[str, object]) -> str:
    """Return a field's type in words, with links to the types of its parts."""
    kind = "any"
    match field:
        case {"$ref": str(where)}:
            name = where.rpartition("/")[2]
            kind = f"[{name}](#{name.lower()})"
        case {"anyOf": [*options]}:
            kind = " or ".join(_kind(option) for option in options if isinstance(option, dict))
        case {"const": value}:
            kind = f"`{value}`"
        case {"enum": [*values]}:
            kind = " or ".join(f"`{value}`" for value in values)
        case {"type": "array", "items": dict(item)}:
            kind = f"list of {_kind(item)}"
        case {"type": str(name)}:
            kind = f"{name} ({field['format']})" if "format" in field else name
        case _:
            pass
    return kind


def _meaning(event: EventType) -> str:
    """Return the meaning of an event: its data's docstring to the first empty line, without the name of the type."""
    text = inspect.cleandoc(event.data.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    meaning = text.partition(": ")[2]
    return f"{meaning[:1].upper()}{meaning[1:]}"


def _described(docstring: str | None) -> dict[str, str]:
    """Return the descriptions of attributes in a model's docstring."""
    descriptions: dict[str, str] = {}
    names: list[str] = []
    _, _, section = inspect.cleandoc(docstring or "").partition("Attributes:\n")
    for line in section.partition("\n\n")[0].splitlines():
        if line.startswith("        ") and names:
            descriptions |= {name: f"{descriptions[name]} {line.strip()}" for name in names}
        elif line.startswith("    ") and ": " in line:
            listed, _, text = line.strip().partition(": ")
            names = listed.split(", ")
            descriptions |= dict.fromkeys(names, text)
    return descriptions


def _listed(services: frozenset[str]) -> str:
    return ", ".join(sorted(services))
