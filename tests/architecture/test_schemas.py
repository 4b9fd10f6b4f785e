import json
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
import yaml

from shared_clients.web.problems import problem_response
from shared_models.catalog import REQUEST_CREATED
from shared_models.envelope import About, new_event
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
    assert differences(REFERENCE, generated()) == [], "run: .venv/bin/python tools/generate.py"


def test_every_kind_of_drift_is_reported_and_mended(tmp_path: Path) -> None:
    wanted = {"a.json": "{}\n", "b/c.json": "{}\n"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.json").write_text('{"changed": true}\n')
    (tmp_path / "gone.json").write_text("{}\n")
    assert differences(tmp_path, wanted) == [
        "a.json is missing",
        "b/c.json differs",
        "gone.json is made from nothing that exists",
    ]
    write(tmp_path, wanted)
    assert differences(tmp_path, wanted) == []


def test_every_schema_is_a_valid_schema() -> None:
    for file in (REFERENCE / "schemas").glob("*.json"):
        jsonschema.Draft202012Validator.check_schema(json.loads(file.read_text()))


def test_an_event_is_as_its_schemas_say() -> None:
    principal = Principal(issuer="i", subject="s", tenant="t", credential="c", channel="api")
    data = RequestCreated(content="hello", principal=principal)
    about = About(new_id(), new_id(), "t", turn=3, expires=datetime.now(UTC))
    event = new_event("request-manager", REQUEST_CREATED, data, about, cause="e", trace={"traceparent": "00-1-2-01"})
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
