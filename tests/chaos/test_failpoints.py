import ast
import os
import signal
import subprocess
import sys
from collections import defaultdict
from enum import StrEnum
from pathlib import Path

import pytest
from pydantic import SecretStr

from service_process.settings import Mode, ProcessSettings
from shared_clients.errors import Permanent
from shared_clients.failpoints import arm, reached
from tests.architecture.sources import Source, planted, shipped, workspace_sources
from tests.chaos.failpoints import (
    FAILPOINTS,
    AgentFailpoint,
    FrameFailpoint,
    GatewayFailpoint,
    ManagerFailpoint,
    WorkFailpoint,
)
from tests.chaos.scenarios.f01_failpoints import KILLS

PLACES = {
    WorkFailpoint.AFTER_COMMIT_BEFORE_PUBLISH: ["durable_work.outbox"],
    WorkFailpoint.AFTER_PUBLISH_BEFORE_MARK: ["durable_work.outbox"],
    WorkFailpoint.AFTER_SWEEP_CLAIM_BEFORE_PUBLISH: ["durable_work.outbox"],
    WorkFailpoint.AFTER_EFFECT_BEFORE_COMMIT: ["durable_work.inbox.consuming"],
    WorkFailpoint.AFTER_COMMIT_BEFORE_ACK: ["durable_work.inbox.consuming"],
    GatewayFailpoint.AFTER_ACCEPT_BEFORE_RELAY: ["api_gateway.api"],
    GatewayFailpoint.AFTER_FRAME_BEFORE_NEXT_FRAME: ["api_gateway.streams"],
    ManagerFailpoint.AFTER_ACCEPT_BEFORE_HAND_OVER: ["request_manager.usecases.accept_request"],
    ManagerFailpoint.AFTER_ACCEPT_BEFORE_ANSWER: ["request_manager.api"],
    ManagerFailpoint.AFTER_CANCEL_BEFORE_ANSWER: ["request_manager.api"],
    ManagerFailpoint.AFTER_SETTLE_BEFORE_COMMIT: ["request_manager.usecases.settle_request"],
    AgentFailpoint.AFTER_CLAIM_BEFORE_START: ["agent_service.usecases.perform_run"],
    AgentFailpoint.AFTER_BEGIN_BEFORE_FIRST_STEP: ["agent_service.usecases.perform_run"],
    FrameFailpoint.AFTER_FRAME_BEFORE_RENEW: ["run_frames.writer"],
    AgentFailpoint.AFTER_STEP_BEFORE_JOURNAL: ["agent_service.usecases.perform_run"],
    AgentFailpoint.AFTER_JOURNAL_BEFORE_NEXT_STEP: ["agent_service.usecases.perform_run"],
    AgentFailpoint.AFTER_STOP_BEFORE_END: ["agent_service.usecases.perform_run"],
    AgentFailpoint.AFTER_END_BEFORE_COMMIT: ["agent_service.usecases.perform_run"],
    AgentFailpoint.AFTER_END_BEFORE_TERMINAL_FRAME: ["agent_service.usecases.perform_run"],
    AgentFailpoint.AFTER_TERMINAL_FRAME_BEFORE_CLEAR: ["agent_service.usecases.perform_run"],
    AgentFailpoint.AFTER_SWEPT_FRAME_BEFORE_CLEAR: ["agent_service.usecases.end_run"],
}
"""The module of each place, once per place."""


def places_in(sources: list[Source]) -> dict[StrEnum, list[str]]:
    """Return where the shipped code calls `reached`, by what it says."""
    places: dict[StrEnum, list[str]] = defaultdict(list)
    for source in sources:
        for node in ast.walk(source.tree):
            match node:
                case ast.Call(
                    func=ast.Name(id="reached"), args=[ast.Attribute(value=ast.Name(id="Failpoint"), attr=name)]
                ):
                    places[FAILPOINTS[name]].append(source.module)
                case _:
                    pass
    return places


def test_every_failpoint_is_used_where_it_should_be_and_nowhere_else() -> None:
    assert places_in(shipped(workspace_sources())) == PLACES
    assert set(PLACES) == set(FAILPOINTS.values())


def test_a_failpoint_at_a_second_place_is_found() -> None:
    second = planted("reached(Failpoint.AFTER_COMMIT_BEFORE_ACK)")
    assert places_in([second]) == {WorkFailpoint.AFTER_COMMIT_BEFORE_ACK: [second.module]}


def test_every_failpoint_is_a_kill_of_f1() -> None:
    assert {kill.place for kill in KILLS} == set(FAILPOINTS.values())


def test_the_name_of_a_failpoint_says_what_its_member_says() -> None:
    assert all(place == name.lower().replace("_", "-") for name, place in FAILPOINTS.items())


def die(folder: Path, service: str) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from pathlib import Path; from durable_work.failpoints import Failpoint;"
        "from shared_clients.failpoints import arm, reached;"
        "arm(Path(sys.argv[1]), sys.argv[2]); reached(Failpoint.AFTER_COMMIT_BEFORE_ACK)"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(folder), service], env=dict(os.environ))


def test_one_file_is_one_death_whoever_comes_first(tmp_path: Path) -> None:
    (tmp_path / WorkFailpoint.AFTER_COMMIT_BEFORE_ACK).touch()
    ends = [child.wait(30) for child in [die(tmp_path, "agent-service") for _ in range(3)]]
    assert sorted(ends) == [-signal.SIGKILL, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_a_name_is_for_that_service_alone(tmp_path: Path) -> None:
    file = tmp_path / WorkFailpoint.AFTER_COMMIT_BEFORE_ACK
    file.write_text("api-gateway\n")
    assert die(tmp_path, "agent-service").wait(30) == 0
    assert file.exists()
    assert die(tmp_path, "api-gateway").wait(30) == -signal.SIGKILL


def test_nobody_dies_who_is_not_armed(tmp_path: Path) -> None:
    (tmp_path / WorkFailpoint.AFTER_COMMIT_BEFORE_ACK).touch()
    arm(None, "agent-service")
    reached(WorkFailpoint.AFTER_COMMIT_BEFORE_ACK)


def test_production_refuses_failpoints(tmp_path: Path) -> None:
    settings = ProcessSettings(
        mode=Mode.PRODUCTION,
        database_url=SecretStr("postgresql://db/flotilla"),
        bus_url="kafka://kafka:9092",
        redis_url=SecretStr("redis://redis:6379"),
        failpoints=tmp_path,
    )
    with pytest.raises(Permanent, match="FLOTILLA_FAILPOINTS"):
        settings.refuse_if_unfit()
