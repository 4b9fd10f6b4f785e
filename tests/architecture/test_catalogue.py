import json

from fleet.migrate import SCHEMAS
from fleet.opening import OPENING
from shared_models.catalog import EVENTS
from shared_models.services import API_GATEWAY, SERVICES, audiences, routes, schemas
from tests.architecture.sources import ROOT
from tools.generate import REFERENCE


def test_every_folder_of_services_is_in_the_catalogue_but_for_the_fleet() -> None:
    folders = {folder.parent.name for folder in ROOT.glob("services/*/pyproject.toml")}
    assert folders - {"fleet"} == set(SERVICES)


def test_every_schema_is_migrated_and_every_migrated_schema_is_in_the_catalogue() -> None:
    with_migrations = {folder.parts[-2] for folder in ROOT.glob("services/*/src/*/migrations")}
    assert with_migrations == {entry.package for entry in schemas().values()}
    assert set(SCHEMAS) == set(schemas())
    for schema, versions in SCHEMAS.items():
        assert list(versions.glob("*.py")), f"{schema} has no revisions in {versions}"


def test_one_process_opens_exactly_the_services_that_the_gateway_calls() -> None:
    assert set(OPENING) == audiences()


def test_every_producer_and_consumer_of_events_is_in_the_catalogue() -> None:
    for event in EVENTS.values():
        assert event.producers | event.consumers <= set(SERVICES), event.name


def test_every_service_that_consumes_or_publishes_events_keeps_dead_letters() -> None:
    exchanging = {name for event in EVENTS.values() for name in event.producers | event.consumers}
    assert exchanging == {entry.name for entry in SERVICES.values() if entry.dead_letters}


def test_routes_lead_to_services_that_the_gateway_calls_and_overlap_nowhere() -> None:
    found = routes()
    assert set(found.values()) <= audiences()
    for route in found:
        assert not [other for other in found if other != route and other.startswith(f"{route}/")], route


def test_every_path_below_the_api_is_the_gateways_own_or_of_a_route_in_the_catalogue() -> None:
    paths = json.loads((REFERENCE / "openapi.json").read_text())["paths"]
    own = "/api/v1/dead-letters"
    strays = [
        path
        for path in paths
        if path.startswith("/api/") and not any(f"{path}/".startswith(f"{route}/") for route in (*routes(), own))
    ]
    assert strays == [], f"add the route to the entry of its service, or to {API_GATEWAY.name}"
    for route in routes():
        assert any(f"{path}/".startswith(f"{route}/") for path in paths), f"{route} has no path behind it"
