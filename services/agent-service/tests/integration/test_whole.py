"""The whole service in one process, with its loops, between the events of request-manager and its own."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest
import pytest_asyncio
from fastapi import FastAPI
from pydantic import SecretStr

from agent_service.adapters.agents import open_agents, read_agents
from agent_service.adapters.providers import ProviderSettings
from agent_service.app import NAME, open_app
from agent_service.settings import Settings
from service_process.settings import Mode
from shared_clients.bus.memory import MemoryBus
from shared_clients.bus.port import Message
from shared_clients.postgres import Database
from shared_clients.redis import Redis, open_redis
from shared_models.requests import FailureReason, ResponseFailed, ResponseReady, Status
from tests.simulators.calling import trusted
from tests.simulators.performing import AGENT, HEAD
from tests.simulators.rows import rows
from tests.simulators.working import Session

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPT = """
spec:
  rules:
    - {when: {user: slowly}, reply: {text: one two three, token_ms: 20000}}
    - {when: {user: briefly away}, reply: {text: one two three, token_ms: 150}}
  default: {text: "You said ${user}."}
"""
READY, FAILED = "flotilla.response.ready.v1", "flotilla.response.failed.v1"


class Requests:
    """request-manager: it publishes requests, and keeps the events about them."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.received: dict[tuple[str, str], asyncio.Future[Message]] = defaultdict(
            asyncio.get_running_loop().create_future
        )

    async def consume(self, message: Message) -> None:
        about = self.received[message.attributes["correlationid"], message.attributes["type"]]
        if not about.done():
            about.set_result(message)

    async def running(self, session: Session, turn: int = 1) -> None:
        async with asyncio.timeout(10):
            await self.received[str(session.request(turn)), "flotilla.run.changed.v1"]

    async def answer(self, session: Session, turn: int = 1) -> str:
        async with asyncio.timeout(10):
            message = await self.received[str(session.request(turn)), READY]
        return ResponseReady.model_validate_json(message.data).response.content

    async def failure(self, session: Session, turn: int = 1) -> ResponseFailed:
        async with asyncio.timeout(10):
            message = await self.received[str(session.request(turn)), FAILED]
        return ResponseFailed.model_validate_json(message.data)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis() -> AsyncGenerator[Redis]:
    async with open_redis("memory://") as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def requests() -> AsyncGenerator[Requests]:
    requests = Requests(MemoryBus())
    async with requests.bus.subscribe("request-manager", frozenset({"flotilla.responses"}), requests.consume):
        yield requests
    await requests.bus.close()


@pytest.fixture(scope="module")
def settings(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("agent-configs")
    written(folder / "agents" / "assistant-v1.yaml", AGENT)
    written(folder / "scripts" / "test.yaml", HEAD + SCRIPT)
    return Settings(
        mode=Mode.DEV,
        database_url=SecretStr(database_url),
        bus_url="memory://",
        redis_url=SecretStr("memory://"),
        agent_configs=folder,
        slots=4,
    )


def written(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@asynccontextmanager
async def service(settings: Settings, requests: Requests, redis: Redis) -> AsyncGenerator[FastAPI]:
    providers = ProviderSettings()
    configuration = await read_agents(settings.agent_configs, settings.default_agent, providers)
    async with (
        open_agents(configuration, providers) as agents,
        open_app(settings, agents, requests.bus, redis, trusted=trusted(NAME)) as app,
    ):
        yield app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(settings: Settings, requests: Requests, redis: Redis, opened: Database) -> AsyncGenerator[FastAPI]:
    async with service(settings, requests, redis) as opened_app:
        yield opened_app


@pytest.fixture
def session() -> Session:
    return Session()


async def test_request_is_answered(app: FastAPI, requests: Requests, session: Session) -> None:
    await requests.bus.publish(session.created(1, "hello"))
    assert await requests.answer(session) == "You said hello."


async def test_messages_of_one_session_are_answered_in_order_and_each_event_once(
    app: FastAPI, requests: Requests, session: Session, opened: Database
) -> None:
    events = [session.created(turn, f"message {turn}") for turn in (3, 1, 5, 2, 4)]
    await asyncio.gather(*(requests.bus.publish(event) for event in events * 2))
    said = [await requests.answer(session, turn) for turn in range(1, 6)]
    assert said == [f"You said message {turn}." for turn in range(1, 6)]
    statement = "SELECT turn, epoch FROM runs WHERE session_id = :id ORDER BY finished_at"
    done = await rows(opened, statement, id=session.session_id)
    assert done == [{"turn": turn, "epoch": 1} for turn in range(1, 6)]


async def test_running_request_is_cancelled_within_a_second(app: FastAPI, requests: Requests, session: Session) -> None:
    await requests.bus.publish(session.created(1, "slowly"))
    await requests.running(session)
    asked = monotonic()
    await requests.bus.publish(session.cancelled(1))
    assert (await requests.failure(session)).status is Status.CANCELLED
    assert monotonic() - asked < 1


async def test_running_request_ends_when_its_deadline_passes(
    app: FastAPI, requests: Requests, session: Session
) -> None:
    await requests.bus.publish(session.created(1, "slowly", expires=timedelta(seconds=0.5)))
    await requests.bus.publish(session.created(2, "hello"))
    end = await requests.failure(session)
    assert (end.status, end.error.reason) == (Status.EXPIRED, FailureReason.DEADLINE)
    assert await requests.answer(session, 2) == "You said hello."


async def test_queued_request_ends_when_its_deadline_passes(app: FastAPI, requests: Requests, session: Session) -> None:
    await requests.bus.publish(session.created(1, "slowly"))
    await requests.bus.publish(session.created(2, "hello", expires=timedelta(seconds=0.1)))
    assert (await requests.failure(session, 2)).status is Status.EXPIRED
    await requests.bus.publish(session.cancelled(1))
    await requests.failure(session)


async def test_service_that_stops_hands_its_runs_to_the_other_at_once(
    app: FastAPI, requests: Requests, settings: Settings, redis: Redis, opened: Database
) -> None:
    sessions = [Session() for _ in range(6)]
    async with AsyncExitStack() as stopping:
        await stopping.enter_async_context(service(settings, requests, redis))
        for one in sessions:
            await requests.bus.publish(one.created(1, "briefly away"))
        for one in sessions:
            await requests.running(one)
    for one in sessions:
        assert await requests.answer(one) == "one two three"
    ids = [one.session_id for one in sessions]
    done = await rows(opened, "SELECT tries, epoch FROM runs WHERE session_id = ANY(:ids)", ids=ids)
    assert {one["tries"] for one in done} == {1}
    assert {one["epoch"] for one in done} == {1, 2}, "both had some of them"
