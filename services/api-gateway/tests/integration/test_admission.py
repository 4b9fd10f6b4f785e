"""Admission control through the whole gateway; its services are stand-ins that count the calls they get."""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response
from pydantic import SecretStr
from starlette.types import Message, Receive, Scope, Send

from api_gateway.admission.concurrency import Stage
from api_gateway.admission.rates import RateLimiter
from api_gateway.app import SIGN_IN_LIMITS, open_app
from api_gateway.settings import Settings
from service_process.settings import Mode
from service_process.web import BodyLimits
from shared_clients.identity import Issuer
from shared_clients.redis import Redis, open_redis
from shared_models.requests import Principal
from tests.simulators.asking import somebody
from tests.simulators.calling import KEY

UNREACHABLE_DATABASE = SecretStr("postgresql://nobody@127.0.0.1:1/nothing")
PATIENCE = 10.0


class TrustingCredentials:
    """Credentials that believe every caller: `Bearer <tenant>/<person>`."""

    async def authenticate(self, headers: Mapping[str, str]) -> Principal | None:
        tenant, _, person = headers.get("authorization", "").removeprefix("Bearer ").partition("/")
        return somebody().model_copy(update={"tenant": tenant, "subject": person, "credential": person})


@dataclass
class StandIn:
    """A service that counts its calls, and answers them all once `released` is set."""

    released: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        if scope["method"] == "POST":
            await receive()
        await self.released.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok", "more_body": False})


@dataclass
class OpenGateway:
    """One gateway, its service and its counts of requests in progress."""

    app: FastAPI
    client: AsyncClient
    service: StandIn
    counts: Mapping[Stage, int]
    rates: RateLimiter

    async def get(self, caller: str = "acme/ann", path: str = "/api/v1/requests") -> Response:
        return await self.client.get(path, headers={"Authorization": f"Bearer {caller}"})

    async def post(self, caller: str = "acme/ann", **headers: str) -> Response:
        return await self.client.post(
            "/api/v1/requests",
            content=b"{}",
            headers={"Authorization": f"Bearer {caller}", "Content-Type": "application/json", **headers},
        )

    async def until(self, calls: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.service.calls < calls:  # noqa: ASYNC110 - a stand-in that counts
                await asyncio.sleep(0.005)


@asynccontextmanager
async def open_gateway(redis: Redis, *, held: bool = False, **limits: int) -> AsyncGenerator[OpenGateway]:
    settings = Settings(
        mode=Mode.DEV,
        database_url=UNREACHABLE_DATABASE,
        bus_url="memory://",
        redis_url=SecretStr("memory://"),
        allowed_hosts="gateway",
        limits=limits,
    )
    service = StandIn()
    if not held:
        service.released.set()
    services = {"request-manager": service, "agent-service": service}
    async with (
        open_app(settings, services, redis, Issuer("api-gateway", KEY), keys=TrustingCredentials()) as gateway,
        AsyncClient(transport=ASGITransport(gateway.app), base_url="http://gateway", timeout=PATIENCE) as client,
    ):
        dependencies = gateway.app.state.dependencies
        dependencies.rates._clock = lambda: 1000.0  # no quota is restored during the test
        await dependencies.rates.sync()
        yield OpenGateway(gateway.app, client, service, dependencies.concurrency._counts, dependencies.rates)


@pytest.fixture
async def redis() -> AsyncGenerator[Redis]:
    async with open_redis("memory://") as opened:
        yield opened


def check_refusal(answer: Response, status: int, slug: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:flotilla:problem:{slug}"), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1


async def test_every_answer_has_the_remaining_quota(redis: Redis) -> None:
    async with open_gateway(redis, caller=20, tenant=30) as one:
        answer = await one.post()
        assert answer.headers["ratelimit-policy"] == '"caller";q=20;w=10, "tenant";q=30;w=10'
        assert answer.headers["ratelimit"] == '"caller";r=19;t=1, "tenant";r=29;t=1'
        again = await one.get()
        assert again.headers["ratelimit"].startswith('"caller";r=18;')
        unknown = await one.get(path="/api/v1/nothing")
        assert unknown.status_code == 404
        assert unknown.headers["ratelimit"].startswith('"caller";r=17;')


async def test_a_caller_over_its_rate_is_refused_before_any_work_and_others_are_not(redis: Redis) -> None:
    async with open_gateway(redis, caller=5, tenant=1000) as one:
        for _ in range(5):
            assert (await one.post()).status_code == 200
        answer = await one.post()
        check_refusal(answer, 429, "rate-limited")
        assert "caller" in answer.json()["detail"]
        assert answer.headers["ratelimit"].startswith('"caller";r=0;t=')
        assert one.service.calls == 5
        assert (await one.post("acme/bob")).status_code == 200
        assert (await one.post("other/ann")).status_code == 200


async def test_a_tenant_over_its_rate_is_refused_whichever_caller_asks(redis: Redis) -> None:
    async with open_gateway(redis, caller=3, tenant=5) as one:
        answers = [await one.post(f"acme/{number}") for number in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        check_refusal(answers[-1], 429, "rate-limited")
        assert "tenant" in answers[-1].json()["detail"]
        assert (await one.post("other/ann")).status_code == 200


async def test_platform_over_its_rate_answers_503_and_uses_no_quota_of_the_caller(redis: Redis) -> None:
    async with open_gateway(redis, caller=100, tenant=100, platform=4) as one:
        answers = [await one.post(f"t{number}/ann") for number in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [503]
        check_refusal(answers[-1], 503, "overloaded")
        assert answers[-1].headers["ratelimit"].startswith('"caller";r=100;')


async def test_two_gateways_share_a_limit(redis: Redis) -> None:
    async with open_gateway(redis, caller=40, replicas=2) as one, open_gateway(redis, caller=40, replicas=2) as two:
        admitted = 0
        for _ in range(20):
            admitted += (await one.post()).status_code == 200
        await one.rates.sync()
        assert (await two.post()).status_code == 200
        admitted += 1
        await two.rates.sync()
        for _ in range(40):
            admitted += (await two.post()).status_code == 200
        assert admitted == 40


async def test_without_redis_each_gateway_admits_its_share_alone() -> None:
    async with open_redis("redis://127.0.0.1:1") as gone, open_gateway(gone, caller=40, tenant=1000, replicas=4) as one:
        answers = [(await one.post()).status_code for _ in range(20)]
        assert answers.count(200) == 10
        assert set(answers) == {200, 429}


async def test_whole_quota_is_back_once_redis_answers_again(redis: Redis) -> None:
    async with open_gateway(redis, caller=40, tenant=1000, replicas=4) as one:
        one.rates._continue_without_redis(ConnectionError("gone"))
        assert (await one.post()).headers["ratelimit"].startswith('"caller";r=9;')
        await one.rates.sync()
        assert (await one.post()).headers["ratelimit"].startswith('"caller";r=38;')


async def test_process_at_its_limit_refuses_at_once_and_answers_probes(redis: Redis) -> None:
    async with open_gateway(redis, held=True, in_flight=3) as one, asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(one.post(f"acme/{number}")) for number in range(3)]
        await one.until(3)
        answer = await one.post()
        check_refusal(answer, 503, "overloaded")
        assert "ratelimit" not in answer.headers
        assert "its limit 'in_flight'" in answer.json()["detail"]
        assert (await one.client.get("/api/v1/nothing")).status_code == 503
        for probe in ("/livez", "/metrics"):
            assert (await one.client.get(probe)).status_code == 200
        assert 'flotilla_admission_refused_total{limit="in_flight"}' in (await one.client.get("/metrics")).text
        one.service.released.set()
        assert [(await task).status_code for task in working] == [200] * 3
        assert (await one.post()).status_code == 200
        assert set(one.counts.values()) == {0}


async def test_waiting_calls_do_not_count_among_requests_being_worked_on(redis: Redis) -> None:
    async with open_gateway(redis, held=True, in_flight=1, open=3, tenant_open=2) as one, asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(one.post(f"acme/{number}", Prefer="wait=20")) for number in range(2)]
        await one.until(2)
        check_refusal(await one.post("acme/3", Prefer="wait=20"), 429, "too-many-open")
        check_refusal(await one.get("acme/3", path="/api/v1/requests/x?wait=5"), 429, "too-many-open")
        waiting.append(tasks.create_task(one.get("other/1", path="/api/v1/requests/x?wait=5")))
        await one.until(3)
        check_refusal(await one.post("third/1", Prefer="wait=20"), 503, "overloaded")
        working = tasks.create_task(one.post())
        await one.until(4)
        one.service.released.set()
        assert [(await task).status_code for task in (*waiting, working)] == [200] * 4
        assert set(one.counts.values()) == {0}


@pytest.mark.parametrize("query", ["?wait=5", "?%77ait=5", "?w%61it=5", "?x=1&wa%69t=5", "?+=&wait", "?%77%61%69%74=5"])
async def test_waiting_call_is_counted_however_its_parameter_is_encoded(redis: Redis, query: str) -> None:
    async with open_gateway(redis, held=True, tenant_open=1) as one, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(one.get(path=f"/api/v1/requests/x{query}"))
        await one.until(1)
        assert one.counts[Stage.OPEN] == 1
        check_refusal(await one.post("acme/bob", Prefer="respond-async, WAIT = 20"), 429, "too-many-open")
        one.service.released.set()
        assert (await waiting).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_client_that_leaves_frees_the_slot_of_its_waiting_call(redis: Redis, method: str) -> None:
    left = asyncio.Event()
    first = [{"type": "http.request", "body": b"{}" if method == "POST" else b"", "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if first:
            return first.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async with open_gateway(redis, held=True) as one:
        headers = {"host": "gateway", "authorization": "Bearer acme/ann"}
        if method == "POST":
            headers |= {"content-type": "application/json", "content-length": "2"}
        scope = {
            "type": "http",
            "method": method,
            "path": "/api/v1/requests",
            "query_string": b"wait=60",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        calling = asyncio.create_task(one.app(scope, receive, send))
        await one.until(1)
        assert one.counts[Stage.OPEN] == 1
        left.set()
        async with asyncio.timeout(PATIENCE):
            await calling
        assert set(one.counts.values()) == {0}
        assert sent == []


async def test_dot_segments_reach_no_service(redis: Redis) -> None:
    async with open_gateway(redis) as one:
        for path in ("/%2e%2e/%2e%2e/%2e%2e/metrics", "/%2e%2e%2f%2e%2e%2f%2e%2e%2fmetrics", "/%252e%252e/x"):
            answer = await one.get(path=f"/api/v1/requests{path}")
            assert (answer.status_code, answer.json()["type"]) == (404, "urn:flotilla:problem:not-found")
        assert one.service.calls == 0


async def test_strangers_who_sign_in_use_a_pool_of_their_own(redis: Redis) -> None:
    rest_may_come = asyncio.Event()

    async def slowly() -> AsyncGenerator[bytes]:
        yield b"{"
        await rest_may_come.wait()
        yield b"}"

    async with open_gateway(redis, receiving=1, in_flight=1, signing_in=2) as one, asyncio.TaskGroup() as tasks:
        head = {"Content-Type": "application/json"}
        slow = [tasks.create_task(one.client.post("/auth/link", content=slowly(), headers=head)) for _ in range(2)]
        async with asyncio.timeout(PATIENCE):
            while one.counts[Stage.SIGNING_IN] < 2:  # noqa: ASYNC110 - the gateway's own count
                await asyncio.sleep(0.005)
        check_refusal(await one.client.post("/auth/link", json={"code": "x"}), 503, "overloaded")
        assert (await one.post()).status_code == 200
        rest_may_come.set()
        assert [(await task).status_code for task in slow] == [422] * 2
        assert set(one.counts.values()) == {0}


async def test_strangers_who_sign_in_have_a_rate_and_a_small_body(redis: Redis) -> None:
    async with open_gateway(redis, sign_in=3) as one:
        assert (await one.client.post("/auth/link", json={"code": "x" * 1100})).status_code == 413
        for _ in range(3):
            assert (await one.client.post("/auth/link", json={})).status_code == 422
        check_refusal(await one.client.post("/auth/link", json={"code": "x"}), 429, "rate-limited")
        assert (await one.post()).status_code == 200


def test_a_strangers_body_has_a_shorter_deadline_than_a_callers() -> None:
    assert SIGN_IN_LIMITS.receive_seconds < BodyLimits().receive_seconds


async def test_body_that_is_still_arriving_does_not_count_among_requests_being_worked_on(redis: Redis) -> None:
    rest_may_come = asyncio.Event()

    async def slowly() -> AsyncGenerator[bytes]:
        yield b"{"
        await rest_may_come.wait()
        yield b"}"

    async with open_gateway(redis, in_flight=1, receiving=2) as one, asyncio.TaskGroup() as tasks:
        head = {"Authorization": "Bearer acme/ann", "Content-Type": "application/json"}
        slow = [
            tasks.create_task(one.client.post("/api/v1/requests", content=slowly(), headers=head)) for _ in range(2)
        ]
        async with asyncio.timeout(PATIENCE):
            while one.counts[Stage.RECEIVING] < 2:  # noqa: ASYNC110 - the gateway's own count
                await asyncio.sleep(0.005)
        assert (await one.get()).status_code == 200
        check_refusal(await one.post(), 503, "overloaded")
        rest_may_come.set()
        assert [(await task).status_code for task in slow] == [200] * 2
        assert set(one.counts.values()) == {0}


async def test_request_that_breaks_off_is_no_longer_counted(redis: Redis) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(open_gateway(redis, held=True))
        asking = asyncio.create_task(one.post(Prefer="wait=20"))
        await one.until(1)
        assert one.counts[Stage.OPEN] == 1
        asking.cancel()
        await asyncio.wait([asking])
        assert set(one.counts.values()) == {0}


async def test_rate_limit_headers_are_lists_of_rfc_9651(redis: Redis) -> None:
    item = r'"[a-z]+"(;[a-z]+=\d+)+'
    async with open_gateway(redis) as one:
        answer = await one.get()
        for name in ("ratelimit", "ratelimit-policy"):
            assert re.fullmatch(rf"{item}(, {item})*", answer.headers[name])
