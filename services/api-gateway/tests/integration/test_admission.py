"""Who is let in, through the whole gateway: its services are stand-ins that count what reaches them."""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from httpx import ASGITransport, AsyncClient, Response
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from api_gateway.admission.places import Stage
from api_gateway.app import open_app
from api_gateway.settings import Settings
from service_process.settings import Mode
from shared_clients.identity import Issuer
from shared_clients.redis import Redis, open_redis
from shared_models.requests import Principal
from tests.simulators.asking import somebody
from tests.simulators.calling import KEY

NOBODY_THERE = SecretStr("postgresql://nobody@127.0.0.1:1/nothing")
PATIENCE = 10.0


class Names:
    """Credentials that believe what a caller says: `Bearer <tenant>/<person>`."""

    async def authenticate(self, headers: Mapping[str, str]) -> Principal | None:
        tenant, _, person = headers.get("authorization", "").removeprefix("Bearer ").partition("/")
        return somebody().model_copy(update={"tenant": tenant, "subject": person, "credential": person})


@dataclass
class Behind:
    """A service that counts its calls, and answers them when it is let go."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        if scope["method"] == "POST":
            await receive()
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok", "more_body": False})


@dataclass
class Door:
    """One gateway."""

    client: AsyncClient
    behind: Behind
    taken: Mapping[Stage, int]

    async def get(self, who: str = "acme/ann", path: str = "/api/v1/requests") -> Response:
        return await self.client.get(path, headers={"Authorization": f"Bearer {who}"})

    async def post(self, who: str = "acme/ann", **headers: str) -> Response:
        return await self.client.post(
            "/api/v1/requests",
            content=b"{}",
            headers={"Authorization": f"Bearer {who}", "Content-Type": "application/json", **headers},
        )

    async def until(self, calls: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.behind.calls < calls:  # noqa: ASYNC110 - a stand-in that counts
                await asyncio.sleep(0.005)


@asynccontextmanager
async def door(redis: Redis, *, held: bool = False, **limits: int) -> AsyncGenerator[Door]:
    settings = Settings(
        mode=Mode.DEV,
        database_url=NOBODY_THERE,
        bus_url="memory://",
        redis_url=SecretStr("memory://"),
        allowed_hosts="gateway",
        limits=limits,
    )
    behind = Behind()
    if not held:
        behind.go.set()
    services = {"request-manager": behind, "agent-service": behind}
    async with (
        open_app(settings, services, redis, Issuer("api-gateway", KEY), keys=Names()) as gateway,
        AsyncClient(transport=ASGITransport(gateway.app), base_url="http://gateway", timeout=PATIENCE) as client,
    ):
        admission = gateway.app.state.means.admission
        admission.rates._clock = lambda: 1000.0  # nothing grows back meanwhile
        await admission.rates.share()
        yield Door(client, behind, admission.places._taken)


@pytest.fixture
async def redis() -> AsyncGenerator[Redis]:
    async with open_redis("memory://") as opened:
        yield opened


def refused(answer: Response, status: int, slug: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:flotilla:problem:{slug}"), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1


async def test_every_answer_says_what_is_left(redis: Redis) -> None:
    async with door(redis, caller=20, tenant=30) as one:
        answer = await one.post()
        assert answer.headers["ratelimit-policy"] == '"caller";q=20;w=10, "tenant";q=30;w=10'
        assert answer.headers["ratelimit"] == '"caller";r=19;t=1, "tenant";r=29;t=1'
        again = await one.get()
        assert again.headers["ratelimit"].startswith('"caller";r=18;')
        unknown = await one.get(path="/api/v1/nothing")
        assert unknown.status_code == 404
        assert unknown.headers["ratelimit"].startswith('"caller";r=17;')


async def test_a_caller_over_its_rate_is_refused_before_any_work_and_others_are_not(redis: Redis) -> None:
    async with door(redis, caller=5, tenant=1000) as one:
        for _ in range(5):
            assert (await one.post()).status_code == 200
        answer = await one.post()
        refused(answer, 429, "rate-limited")
        assert "caller" in answer.json()["detail"]
        assert answer.headers["ratelimit"].startswith('"caller";r=0;t=')
        assert one.behind.calls == 5
        assert (await one.post("acme/bob")).status_code == 200
        assert (await one.post("other/ann")).status_code == 200


async def test_a_tenant_over_its_rate_is_refused_whoever_asks(redis: Redis) -> None:
    async with door(redis, caller=3, tenant=5) as one:
        answers = [await one.post(f"acme/{number}") for number in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        refused(answers[-1], 429, "rate-limited")
        assert "tenant" in answers[-1].json()["detail"]
        assert (await one.post("other/ann")).status_code == 200


async def test_the_platform_over_its_rate_says_503_and_nothing_of_anybodys_quota_is_used(redis: Redis) -> None:
    async with door(redis, caller=100, tenant=100, platform=4) as one:
        answers = [await one.post(f"t{number}/ann") for number in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [503]
        refused(answers[-1], 503, "overloaded")
        assert answers[-1].headers["ratelimit"].startswith('"caller";r=100;')


async def test_two_gateways_share_a_limit(redis: Redis) -> None:
    async with door(redis, caller=40, replicas=2) as one, door(redis, caller=40, replicas=2) as two:
        let_in = 0
        for _ in range(20):
            let_in += (await one.post()).status_code == 200
        admissions = [each.client._transport.app.state.means.admission for each in (one, two)]  # type: ignore[attr-defined]  # the transport's app
        await admissions[0].rates.share()
        assert (await two.post()).status_code == 200
        let_in += 1
        await admissions[1].rates.share()
        for _ in range(40):
            let_in += (await two.post()).status_code == 200
        assert let_in == 40


async def test_without_redis_each_gateway_lets_in_its_part_and_never_everything() -> None:
    async with open_redis("redis://127.0.0.1:1") as gone, door(gone, caller=40, tenant=1000, replicas=4) as one:
        answers = [(await one.post()).status_code for _ in range(20)]
        assert answers.count(200) == 10
        assert set(answers) == {200, 429}


async def test_a_redis_that_comes_back_is_noticed(redis: Redis) -> None:
    async with door(redis, caller=40, tenant=1000, replicas=4) as one:
        rates = one.client._transport.app.state.means.admission.rates  # type: ignore[attr-defined]  # the transport's app
        rates._lose(ConnectionError("gone"))
        assert (await one.post()).headers["ratelimit"].startswith('"caller";r=9;')
        await rates.share()
        assert (await one.post()).headers["ratelimit"].startswith('"caller";r=38;')


async def test_a_process_with_its_hands_full_refuses_at_once_and_answers_probes(redis: Redis) -> None:
    async with door(redis, held=True, in_flight=3) as one, asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(one.post(f"acme/{number}")) for number in range(3)]
        await one.until(3)
        answer = await one.post()
        refused(answer, 503, "overloaded")
        assert "ratelimit" not in answer.headers
        assert (await one.client.get("/api/v1/nothing")).status_code == 503
        for probe in ("/livez", "/metrics"):
            assert (await one.client.get(probe)).status_code == 200
        assert 'flotilla_admission_refused_total{limit="in_flight"}' in (await one.client.get("/metrics")).text
        one.behind.go.set()
        assert [(await task).status_code for task in working] == [200] * 3
        assert (await one.post()).status_code == 200
        assert set(one.taken.values()) == {0}


async def test_calls_that_wait_take_no_place_from_those_that_are_worked_on(redis: Redis) -> None:
    async with door(redis, held=True, in_flight=1, open=3, tenant_open=2) as one, asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(one.post(f"acme/{number}", Prefer="wait=20")) for number in range(2)]
        await one.until(2)
        refused(await one.post("acme/3", Prefer="wait=20"), 429, "too-many-open")
        refused(await one.get("acme/3", path="/api/v1/requests/x?wait=5"), 429, "too-many-open")
        waiting.append(tasks.create_task(one.get("other/1", path="/api/v1/requests/x?wait=5")))
        await one.until(3)
        refused(await one.post("third/1", Prefer="wait=20"), 503, "overloaded")
        working = tasks.create_task(one.post())
        await one.until(4)
        one.behind.go.set()
        assert [(await task).status_code for task in (*waiting, working)] == [200] * 4
        assert set(one.taken.values()) == {0}


async def test_a_body_that_is_still_coming_takes_no_place_from_those_that_are_here(redis: Redis) -> None:
    whole = asyncio.Event()

    async def slowly() -> AsyncGenerator[bytes]:
        yield b"{"
        await whole.wait()
        yield b"}"

    async with door(redis, in_flight=1, receiving=2) as one, asyncio.TaskGroup() as tasks:
        head = {"Authorization": "Bearer acme/ann", "Content-Type": "application/json"}
        slow = [
            tasks.create_task(one.client.post("/api/v1/requests", content=slowly(), headers=head)) for _ in range(2)
        ]
        async with asyncio.timeout(PATIENCE):
            while one.taken[Stage.RECEIVING] < 2:  # noqa: ASYNC110 - the gateway's own count
                await asyncio.sleep(0.005)
        assert (await one.get()).status_code == 200
        refused(await one.post(), 503, "overloaded")
        whole.set()
        assert [(await task).status_code for task in slow] == [200] * 2
        assert set(one.taken.values()) == {0}


async def test_a_request_that_breaks_off_leaves_its_place(redis: Redis) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(door(redis, held=True))
        asking = asyncio.create_task(one.post(Prefer="wait=20"))
        await one.until(1)
        assert one.taken[Stage.OPEN] == 1
        asking.cancel()
        await asyncio.wait([asking])
        assert set(one.taken.values()) == {0}


async def test_headers_are_lists_as_rfc_9651_has_them(redis: Redis) -> None:
    item = r'"[a-z]+"(;[a-z]+=\d+)+'
    async with door(redis) as one:
        answer = await one.get()
        for name in ("ratelimit", "ratelimit-policy"):
            assert re.fullmatch(rf"{item}(, {item})*", answer.headers[name])
