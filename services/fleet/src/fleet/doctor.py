"""Examine a fleet on this machine: settings, agents, models, stores, schemas, topics, the clock, and the fleet itself.

Each check is a function that returns its findings, so one that fails leaves the others. None changes anything, and none
starts a program: an embedded database that does not run is said not to run.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from pydantic import BaseModel

from agent_service.adapters.default_model import list_models
from agent_service.adapters.providers import OPENAI
from agent_service.domain.agents import AgentList, edit_remedy, models_of
from durable_work.migrating import missing_revisions
from fleet.agents import FleetAgents, describe_agents, read_fleet_agents
from fleet.broker import OWN_BROKER
from fleet.migrate import SCHEMAS
from fleet.own_command import own_command
from fleet.settings import FleetSettings, read_settings
from fleet.state_folder import find_dev_key
from local_backends.embedded import EmbeddedPostgres
from shared_clients.bus import missing_topics
from shared_clients.errors import OutsideError, Permanent, Transient, Unconfirmed
from shared_clients.outbound import HttpClient
from shared_clients.postgres import open_database, sql
from shared_clients.redis import open_redis
from shared_models.catalog import TOPICS

CHECK_SECONDS: Final = 15.0
MAX_CLOCK_SECONDS: Final = 2.0
"""A signed identity between services is valid for a minute; clocks have to agree far better than that."""
DATABASE_CLOCK: Final = sql("SELECT extract(epoch FROM clock_timestamp()) AS seconds")


class Finding(BaseModel):
    """The result of one check.

    Attributes:
        state: `note` is neither good nor bad, such as a fleet that does not run.
        remedy: what to do; unset where nothing has to be done.
    """

    check: str
    state: Literal["good", "note", "bad"]
    found: str
    remedy: str | None = None


class Diagnosis(BaseModel):
    """All findings; `ok` is false where any of them is bad."""

    ok: bool
    findings: tuple[Finding, ...]


async def examine() -> Diagnosis:
    """Run every check, and return what was found."""
    try:
        settings = read_settings()
    except Permanent as error:
        return _diagnosis([_bad("settings", str(error), "correct or unset these variables")])
    findings = [_good("settings", f"state in {settings.home}, port {settings.port}")]
    try:
        agents = await read_fleet_agents(settings)
    except OutsideError as error:
        findings.append(_bad("agents", str(error), None))
    else:
        findings.append(_good("agents", "; ".join(describe_agents(agents))))
        findings += await _guarded("models", lambda: _examine_models(agents))
    findings += await _guarded("fleet", lambda: _examine_fleet(settings))
    findings += await _guarded("postgres", lambda: _examine_database(settings))
    findings += await _guarded("redis", lambda: _examine_redis(settings))
    findings += await _guarded("topics", lambda: _examine_topics(settings))
    return _diagnosis(findings)


def _diagnosis(findings: list[Finding]) -> Diagnosis:
    return Diagnosis(ok=not any(finding.state == "bad" for finding in findings), findings=tuple(findings))


def _good(check: str, found: str) -> Finding:
    return Finding(check=check, state="good", found=found)


def _note(check: str, found: str, remedy: str | None = None) -> Finding:
    return Finding(check=check, state="note", found=found, remedy=remedy)


def _bad(check: str, found: str, remedy: str | None) -> Finding:
    return Finding(check=check, state="bad", found=found, remedy=remedy)


async def _guarded(check: str, examination: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    """Return the findings of a check; what an outside system answers wrongly, or too late, is a finding too."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await examination()
    except TimeoutError:
        return [_bad(check, f"no answer within {CHECK_SECONDS:g} s", "see whether it runs and can be reached")]
    except OutsideError as error:
        return [_bad(check, str(error), "see whether it runs and can be reached, and correct its address or login")]
    except ValueError as error:  # an address of a form that the client of a store does not know
        return [_bad(check, str(error), "correct its address")]


async def _examine_models(agents: FleetAgents) -> list[Finding]:
    """Ask the provider for its models; nothing is asked that costs money."""
    wanted = {
        model.name for agent in agents.configuration.agents for model in models_of(agent) if model.provider == "openai"
    }
    if not wanted:
        return [_note("models", "no agent needs a provider: scripts answer", "set OPENAI_API_KEY for a real model")]
    url = agents.providers.openai_base_url or OPENAI
    listed = await list_models(url, agents.providers)
    if missing := sorted(wanted - set(listed)):
        return [_bad("models", f"{url} has no model {', '.join(missing)}", "name one that it has in the agent's file")]
    return [_good("models", f"{url} answers, and has {', '.join(sorted(wanted))}")]


async def _examine_fleet(settings: FleetSettings) -> list[Finding]:
    """Ask the running fleet whether it is ready, whether our key is its key, and for its agents."""
    url = f"http://localhost:{settings.port}"
    async with HttpClient(url) as gateway:
        try:
            ready = await gateway.send_once("GET", "/readyz", content=b"", headers={}, deadline=5.0)
        except Transient:
            return [_note("fleet", f"nothing listens on port {settings.port}", "start a fleet with: make up")]
        if ready.text != "ready\n" and "urn:flotilla" not in ready.text:
            found = f"another program than Flotilla listens on port {settings.port}"
            return [_bad("fleet", found, "stop it, or set FLOTILLA_PORT to another port")]
        if ready.status_code != 200:
            return [_bad("fleet", f"{url} is not ready: a store does not answer", "see its log, and the checks below")]
        key = find_dev_key(settings.home, settings.chosen_key)
        bearer = {"Authorization": f"Bearer {key}"}
        answer = await gateway.send_once("GET", "/api/v1/agents", content=b"", headers=bearer, deadline=5.0)
    if answer.status_code == 401:
        remedy = "set FLOTILLA_AUTH_DEV_KEY to the API key that this fleet printed when it started"
        return [_bad("fleet", f"{url} refuses our API key", remedy)]
    if answer.status_code != 200:
        return [_bad("fleet", f"{url} does not list its agents (status {answer.status_code})", "see its log")]
    listed = AgentList.model_validate_json(answer.content)
    agents = ", ".join(f"{agent.name} (model {agent.model} of {agent.provider})" for agent in listed.agents)
    return [_good("fleet", f"{url} is ready, and has {agents}"), *_edited(listed)]


def _edited(listed: AgentList) -> list[Finding]:
    return [
        _note("agents", f"the file of {agent.name}, version {agent.version}", edit_remedy(agent.name, agent.version))
        for agent in listed.agents
        if agent.edited
    ]


async def _examine_database(settings: FleetSettings) -> list[Finding]:
    """Compare the database's schemas with ours, and its clock with ours."""
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
    else:
        url = EmbeddedPostgres(settings.home.resolve() / "postgres").url()
    try:
        async with open_database(url, "public", pool_size=2) as database:
            await database.ping()
            async with database.autocommit() as tx:
                row = await tx.row(DATABASE_CLOCK)
    except Unconfirmed:
        if settings.database_url is not None:
            raise
        return [
            _note("postgres", "the embedded database does not run: `make up` starts it, `up --processes` has another")
        ]
    findings = [_good("postgres", "it answers")]
    lacking = {schema: await missing_revisions(url, schema, versions) for schema, versions in SCHEMAS.items()}
    if behind := sorted(schema for schema, revisions in lacking.items() if revisions):
        remedy = f"bring them up to date with: {own_command()} migrate"
        findings.append(_bad("schemas", f"not up to date: {', '.join(behind)}", remedy))
    else:
        findings.append(_good("schemas", f"up to date: {', '.join(sorted(SCHEMAS))}"))
    assert row is not None
    return [*findings, _compare_clocks(float(row["seconds"]) - time.time())]


def _compare_clocks(seconds: float) -> Finding:
    """Judge the difference between the database's clock and ours."""
    if abs(seconds) > MAX_CLOCK_SECONDS:
        found = f"the database's clock is {seconds:+.1f} s from this machine's"
        return _bad("clock", found, "let both follow a time server (NTP)")
    return _good("clock", "it agrees with the database's")


async def _examine_redis(settings: FleetSettings) -> list[Finding]:
    if settings.redis_url is None:
        return [_note("redis", "none is set: the fleet has it in memory, or starts one")]
    async with open_redis(settings.redis_url.get_secret_value()) as redis:
        await redis.ping()
    return [_good("redis", "it answers")]


async def _examine_topics(settings: FleetSettings) -> list[Finding]:
    if settings.bus_url is None or settings.bus_url == OWN_BROKER:
        return [_note("topics", "no Kafka is set: the fleet has the bus in memory, or starts one")]
    if not settings.bus_url.startswith("kafka://"):
        return [_note("topics", "the bus is a broker over HTTP, which has none")]
    if missing := await missing_topics(settings.bus_url, TOPICS):
        remedy = f"make them with: {own_command()} migrate"
        return [_bad("topics", f"missing: {', '.join(sorted(missing))}", remedy)]
    return [_good("topics", f"all are there: {', '.join(sorted(TOPICS))}")]
