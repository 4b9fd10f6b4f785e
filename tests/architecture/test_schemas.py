import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
import yaml

from service_process.web.problems import problem_response
from shared_models.catalog import EVENTS, REQUEST_CREATED
from shared_models.envelope import EventContext, new_event
from shared_models.frames import Cursor, TextEncoder, encode
from shared_models.ids import new_id
from shared_models.problems import Problem, Problems
from shared_models.requests import Principal, RequestCreated
from tests.architecture.sources import ROOT
from tools.generate import REFERENCE, differences, generated, write

AGENTS = ROOT / "agent-configs" / "agents"


def check(instance: object, schema: str) -> None:
    jsonschema.validate(instance, json.loads((REFERENCE / "schemas" / f"{schema}.json").read_text()))


def test_the_committed_reference_is_what_the_code_says() -> None:
    assert differences(REFERENCE, generated()) == [], "run: .venv/bin/python -m tools.generate"


def test_every_kind_of_drift_is_reported_and_mended(tmp_path: Path) -> None:
    wanted = {"a.json": "{}\n", "b/c.json": "{}\n"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.json").write_text('{"changed": true}\n')
    (tmp_path / "gone.json").write_text("{}\n")
    assert differences(tmp_path, wanted) == [
        "a.json is missing",
        "b/c.json differs",
        "gone.json is not generated any more",
    ]
    write(tmp_path, wanted)
    assert differences(tmp_path, wanted) == []


def test_every_schema_is_a_valid_schema() -> None:
    for file in (REFERENCE / "schemas").glob("*.json"):
        jsonschema.Draft202012Validator.check_schema(json.loads(file.read_text()))


def test_an_event_is_as_its_schemas_say() -> None:
    principal = Principal(issuer="i", subject="s", tenant="t", credential="c", channel="api")
    data = RequestCreated(content="hello", principal=principal)
    context = EventContext(new_id(), new_id(), "t", turn=3, expires=datetime.now(UTC))
    event = new_event("request-manager", REQUEST_CREATED, data, context, cause="e", trace={"traceparent": "00-1-2-01"})
    check(event.attributes(), "event")
    check(json.loads(event.data), REQUEST_CREATED.name)


def test_frames_carry_the_metadata_that_their_schema_asks_for() -> None:
    run, message = new_id(), new_id()
    check(json.loads(encode("RUN_STARTED", run, Cursor(1, 1), {"threadId": "t", "runId": "r"}).data), "frame")
    check(json.loads(TextEncoder(run, message, 1).encode(2, "hé").data), "frame")


def test_a_problem_is_as_its_schema_says() -> None:
    problem = Problem(Problems.INVALID_BODY, "wrong", errors=({"pointer": "/content", "detail": "is missing"},))
    scope = {"type": "http", "path": "/api/v1/requests", "root_path": "", "headers": []}
    check(json.loads(bytes(problem_response(scope, problem).body)), "problem")


def test_agents_that_ship_fit_the_schema_that_editors_use() -> None:
    files = sorted(AGENTS.glob("*.yaml"))
    assert files
    for file in files:
        check(yaml.safe_load(file.read_text()), "agent")


def test_an_editor_points_at_a_field_that_does_not_exist() -> None:
    spec = {"model": {"provider": "scripted", "name": "greeter"}, "promts": {}}
    agent = {"apiVersion": "flotilla/v1", "kind": "Agent", "metadata": {"name": "greeter"}, "spec": spec}
    with pytest.raises(jsonschema.ValidationError) as caught:
        check(agent, "agent")
    assert "promts" in caught.value.message


def references(document: object) -> Iterator[str]:
    """Yield every reference in a document."""
    match document:
        case {"$ref": str(where), **rest}:
            yield where
            yield from references(rest)
        case dict():
            for value in document.values():
                yield from references(value)
        case list():
            for value in document:
                yield from references(value)
        case _:
            pass


def test_every_reference_in_the_asyncapi_document_leads_somewhere() -> None:
    document = json.loads((REFERENCE / "asyncapi.json").read_text())
    found = set(references(document))
    assert len(found) > len(EVENTS) * 3
    for where in found:
        assert where.startswith("#/")
        place = document
        for part in where.removeprefix("#/").split("/"):
            place = place[part]


def test_the_asyncapi_document_tells_who_writes_and_who_reads_each_event() -> None:
    document = json.loads((REFERENCE / "asyncapi.json").read_text())
    told = {
        (name.partition(".")[0], operation["action"], operation["messages"][0]["$ref"].rpartition("/")[2])
        for name, operation in document["operations"].items()
    }
    assert told == {
        (service, action, event.name)
        for event in EVENTS.values()
        for action, services in (("send", event.producers), ("receive", event.consumers))
        for service in services
    }
    for event in EVENTS.values():
        assert event.name in document["channels"][event.topic]["messages"]


def test_the_payloads_of_the_asyncapi_document_take_what_is_sent() -> None:
    document = json.loads((REFERENCE / "asyncapi.json").read_text())
    payload = document["components"]["messages"][REQUEST_CREATED.name]["payload"]
    principal = Principal(issuer="i", subject="s", tenant="t", credential="c", channel="api")
    data = RequestCreated(content="hello", principal=principal).model_dump(mode="json", exclude_none=True)
    jsonschema.validate(data, {**payload, "components": document["components"]})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "content": 1}, {**payload, "components": document["components"]})


def test_the_page_of_events_tells_every_field_of_every_event() -> None:
    text = (REFERENCE / "events.md").read_text()
    for event in EVENTS.values():
        section = text.partition(f"## {event.name}\n")[2].partition("\n## ")[0]
        for name in event.data.model_fields:
            [row] = [line for line in section.splitlines() if line.startswith(f"| `{name}` |")]
            assert not row.endswith("|  |"), f"{event.name}.{name} is not described in the docstring of its model"
