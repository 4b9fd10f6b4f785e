"""The containers keep their promises, as far as that can be read without an engine."""

from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.architecture import containers
from tests.architecture.sources import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "docker-compose.yaml").read_text()
IMAGE_RULES = [containers.origin_complaints, containers.process_complaints, containers.port_complaints]
RULES = [
    containers.hardening_complaints,
    containers.reach_complaints,
    containers.secret_complaints,
    containers.settings_complaints,
    containers.catalogue_complaints,
]

Rule = Callable[[str], Iterator[str]]


@pytest.mark.parametrize("rule", IMAGE_RULES, ids=lambda rule: rule.__name__)
def test_the_image_keeps_its_promises(rule: Rule) -> None:
    assert list(rule(DOCKERFILE)) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_containers_keep_their_promises(rule: Rule) -> None:
    assert list(rule(COMPOSE)) == []


def test_every_service_has_a_container() -> None:
    folders = [folder.parent.name for folder in ROOT.glob("services/*/pyproject.toml")]
    assert containers.missing_services(COMPOSE, folders) == set()
    assert containers.missing_services(COMPOSE, [*folders, "planted"]) == {"planted"}


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("python:3.12-slim-bookworm", "python:latest", "FROM python:latest"),
        ("python:3.12-slim-bookworm", "python", "FROM python:"),
        (" --require-hashes -r /locked.txt", " -r /locked.txt", "expected --require-hashes"),
        ("USER 65532:65532", "USER 0:0", "USER 0:0"),
        ("USER 65532:65532", "USER flotilla", "USER flotilla"),
        ("USER 65532:65532\n", "", "USER None"),
        ("STOPSIGNAL SIGTERM\n", "", "STOPSIGNAL"),
        ('ENTRYPOINT ["python", "-P", "/app/start.py"]', "ENTRYPOINT python /app/start.py", "ENTRYPOINT python"),
        ("HEALTHCHECK", "#", "HEALTHCHECK"),
        ("org.opencontainers.image.title", "title", "labels"),
        ("EXPOSE 8080", "EXPOSE 8081", "the ports ['8080', '8081'] are not the catalogue's"),
        ("FLOTILLA_PORT=8080", "FLOTILLA_PORT=9090", "the ports ['8080', '9090'] are not the catalogue's"),
    ],
)
def test_a_planted_fault_of_the_image_is_found(old: str, new: str, complaint: str) -> None:
    assert old in DOCKERFILE
    (found,) = [one for rule in IMAGE_RULES for one in rule(DOCKERFILE.replace(old, new))]
    assert complaint in found


@pytest.mark.parametrize(
    ("service", "change", "complaint"),
    [
        ("kafka", {"read_only": False}, "kafka: expected read_only"),
        ("kafka", {"cap_drop": []}, "kafka: expected cap_drop"),
        ("postgres", {"cap_add": ["CHOWN"]}, "postgres: expected cap_drop"),
        ("valkey", {"security_opt": []}, "valkey: expected security_opt"),
        ("migrate", {"mem_limit": None}, "migrate: expected a bound mem_limit"),
        ("agent-service", {"healthcheck": {"disable": True}}, "agent-service: expected a healthcheck"),
        ("kafka", {"image": "apache/kafka:latest"}, "kafka: the image apache/kafka:latest"),
        ("valkey", {"image": "valkey/valkey"}, "valkey: the image valkey/valkey has"),
        ("postgres", {"user": "0:0"}, "postgres: the user 0:0"),
        ("api-gateway", {"ports": ["8080:8080"]}, "api-gateway: the port 8080:8080"),
        ("request-manager", {"network_mode": "host"}, "request-manager: a container keeps"),
        ("postgres", {"networks": ["inside", "outside"]}, "postgres: a store belongs"),
        ("postgres", {"environment": {"POSTGRES_PASSWORD": "flotilla"}}, "postgres: POSTGRES_PASSWORD has to be"),
        (
            "request-manager",
            {"image": "flotilla/other"},
            "request-manager: expected the image flotilla/request-manager",
        ),
        ("request-manager", {"environment": {"FLOTILLA_PORT": "81"}}, "request-manager: the port 81 is not"),
        (
            "api-gateway",
            {"depends_on": {"agent-service": {"condition": "service_healthy"}}},
            "api-gateway: expected depends_on: request-manager",
        ),
        (
            "api-gateway",
            {"environment": {"FLOTILLA_SERVICE_URLS": '{"agent-service": ["http://agent-service:8080"]}'}},
            "api-gateway: expected FLOTILLA_SERVICE_URLS to be",
        ),
        (
            "agent-service",
            {"environment": {"FLOTILLA_SLOT": "4"}},
            "agent-service: agent_service reads no FLOTILLA_SLOT",
        ),
    ],
)
def test_a_planted_fault_of_a_container_is_found(service: str, change: dict[str, object], complaint: str) -> None:
    document = yaml.safe_load(COMPOSE)
    changed = {**document["services"][service], **change}
    document["services"][service] = {name: value for name, value in changed.items() if value is not None}
    (found,) = [one for rule in RULES for one in rule(yaml.safe_dump(document))]
    assert found.startswith(complaint)
