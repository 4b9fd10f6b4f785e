"""The gateway on a real socket before request-manager and agent-service, all in this process, on one database.

Faked: nothing. It differs from `flotilla up` in its database, which the tests share, and in what its agent says.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from fastapi import FastAPI
from pydantic import SecretStr
from pydantic_core import from_json

import agent_service.app
import api_gateway.app
import request_manager.app
from agent_service.adapters.agents import open_agents, read_agents
from agent_service.adapters.providers import ProviderSettings
from agent_service.settings import Settings as AgentSettings
from api_gateway import queries
from api_gateway.settings import Settings as GatewaySettings
from api_gateway.usecases.sign_in import hash_secret
from fleet.opening import SharedSettings
from request_manager.settings import Settings as RequestSettings
from service_process.serving import Stop, bind, serve
from service_process.settings import Mode
from service_process.web import draining
from shared_clients.bus import open_bus
from shared_clients.bus.port import Bus
from shared_clients.identity import DevKey, Issuer, trust
from shared_clients.redis import Redis, open_redis
from shared_models.frames import Cursor, Frame
from shared_models.ids import new_id
from shared_models.requests import Principal
from shared_models.services import audiences
from tests.simulators.calling import KEY
from tests.simulators.performing import AGENT, HEAD

NO_KEYS: Final = ProviderSettings()
DEV_KEY: Final = "a-key-of-these-tests"
SCRIPT: Final = """
spec:
  rules:
    - {when: {user: slowly}, reply: {text: one two three four five six, token_ms: 250}}
    - {when: {user: never}, reply: {text: one two, fault: {kind: stall, after: 1}}}
  default: {text: "You said ${user}.", token_ms: 2}
"""


@dataclass(frozen=True, slots=True)
class House:
    """All of it, open.

    Attributes:
        url: of the gateway.
        services: by name, behind the gateway.
    """

    url: str
    gateway: api_gateway.app.Gateway
    services: dict[str, FastAPI]
    redis: Redis
    where: SharedSettings
    bus: Bus

    def client(self, **headers: str) -> httpx.AsyncClient:
        """Return a client; without headers it has the developer's key."""
        return httpx.AsyncClient(
            base_url=self.url, headers=headers or {"Authorization": f"Bearer {DEV_KEY}"}, timeout=20
        )


@asynccontextmanager
async def open_house(database_url: str, folder: Path) -> AsyncGenerator[House]:
    for name, text in {"agents/assistant-v1.yaml": AGENT, "scripts/test.yaml": HEAD + SCRIPT}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    where = SharedSettings(
        mode=Mode.DEV, database_url=SecretStr(database_url), bus_url="memory://", redis_url=SecretStr("memory://")
    )
    issuer = Issuer(api_gateway.app.NAME, KEY)
    trusted = trust(issuer.service, KEY.public_key(), audiences())
    listener = bind("127.0.0.1", 0)
    host = f"localhost:{listener.getsockname()[1]}"
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(open_bus("memory://"))
        redis = await stack.enter_async_context(open_redis("memory://"))
        opening = request_manager.app.open_app(RequestSettings(**where), bus, redis, trusted)
        services = {request_manager.app.NAME: await stack.enter_async_context(opening)}
        settings = AgentSettings(**where, agent_configs=folder)
        agents = await stack.enter_async_context(open_agents(await read_agents(folder, "assistant", NO_KEYS), NO_KEYS))
        opening = agent_service.app.open_app(settings, agents, bus, redis, trusted=trusted)
        services[agent_service.app.NAME] = await stack.enter_async_context(opening)
        gateway = await stack.enter_async_context(
            api_gateway.app.open_app(
                GatewaySettings(**where, allowed_hosts=host), services, redis, issuer, keys=DevKey(DEV_KEY)
            )
        )
        stop = Stop()
        serving = asyncio.create_task(
            serve(
                gateway.app,
                host="127.0.0.1",
                port=0,
                sockets=[listener],
                stop=stop,
                draining=draining(gateway.app).set,
                drain_seconds=2,
            )
        )
        try:
            yield House(f"http://{host}", gateway, services, redis, where, bus)
        finally:
            stop.request()
            await serving


def person(tenant: str, *scopes: str) -> Principal:
    """Return somebody new in a tenant, with these scopes."""
    name = new_id().hex
    return Principal(
        issuer="idp", subject=name, tenant=tenant, credential=name, channel="web", scopes=frozenset(scopes)
    )


@asynccontextmanager
async def signed_in(house: House, principal: Principal) -> AsyncGenerator[httpx.AsyncClient]:
    """Open a browser in which a person is signed in."""
    token = new_id().hex
    async with house.gateway.database.transaction() as tx:
        await queries.insert_session(tx, hash_secret(token), principal, timedelta(hours=1))
    async with house.client(Cookie=f"flotilla-{urlsplit(house.url).port}={token}", Origin=house.url) as client:
        yield client


def events(text: str) -> list[Frame]:
    """Read a whole stream of server-sent events; comments and `retry` are left out."""
    frames = []
    for event in text.split("\n\n")[:-1]:
        if not event.startswith((":", "retry:")):
            id_, data = event.split("\n")
            body = data.removeprefix("data: ").encode()
            frames.append(Frame(Cursor.parse(id_.removeprefix("id: ")), from_json(body)["type"], body))
    return frames


def run_of(response: httpx.Response) -> UUID:
    return UUID(response.headers["flotilla-execution-id"])
