"""A request for an agent that does not exist is refused before it is accepted, with the names that exist."""

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from api_gateway.agent_names import KEPT_SECONDS, AgentNames
from api_gateway.hop import Hop
from shared_clients.identity import Issuer
from shared_models.problems import Problem
from tests.problems import problem
from tests.simulators.asking import somebody
from tests.simulators.calling import KEY
from tests.simulators.house import House

pytestmark = pytest.mark.asyncio(loop_scope="module")
BODY = b'{"content": "hi", "agent": "%s"}'


@pytest.mark.parametrize("path", ["/chat", "/api/v1/requests", "/api/v1/sessions"])
async def test_unknown_agent_is_refused_with_the_names_that_exist(client: httpx.AsyncClient, path: str) -> None:
    body = {"agent": "nobody"} | ({} if path.endswith("sessions") else {"content": "hi"})
    refused = await client.post(path, json=body)
    assert problem(refused, 404, "unknown-agent") == "There is no agent nobody. The agents are: assistant."
    assert (await client.get("/api/v1/requests?limit=1")).json()["requests"] == []


async def test_known_agent_and_no_agent_are_accepted(client: httpx.AsyncClient) -> None:
    for body in ({"content": "hi", "agent": "assistant"}, {"content": 'the word "agent": "nobody" in a text'}):
        answer = await client.post("/api/v1/requests", json=body, headers={"Prefer": "wait=20"})
        assert answer.json()["status"] == "completed"


async def test_agents_are_listed_with_their_models(client: httpx.AsyncClient) -> None:
    (agent,) = (await client.get("/api/v1/agents")).json()["agents"]
    assert agent.pop("revision")
    assert agent == {
        "name": "assistant",
        "description": "",
        "version": 1,
        "provider": "scripted",
        "model": "test",
        "default": True,
        "edited": False,
    }


async def test_names_are_asked_for_once_a_minute_and_again_before_a_refusal(house: House) -> None:
    calls, now = list[str](), [0.0]

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(scope["path"])
        await house.services["agent-service"](scope, receive, send)

    hop = Hop({"agent-service": counted}, Issuer("api-gateway", KEY))
    names = AgentNames(hop, clock=lambda: now[0])
    for _ in range(3):
        await names.refuse_unknown(somebody(), BODY % b"assistant")
    assert len(calls) == 1
    with pytest.raises(Problem, match="The agents are: assistant"):
        await names.refuse_unknown(somebody(), BODY % b"nobody")
    assert len(calls) == 2
    now[0] = KEPT_SECONDS + 1
    await names.refuse_unknown(somebody(), BODY % b"assistant")
    assert len(calls) == 3
    await names.refuse_unknown(somebody(), b'{"agent": 7}')
    await names.refuse_unknown(somebody(), b'{"content": "hi"}')
    assert len(calls) == 3, "request-manager says what is wrong with a body"


async def test_nothing_is_refused_while_the_agents_cannot_be_asked_for(house: House) -> None:
    async def away(scope: Scope, receive: Receive, send: Send) -> None:
        await house.services["request-manager"]({**scope, "path": "/nowhere"}, receive, send)

    hop = Hop({"agent-service": away}, Issuer("api-gateway", KEY))
    await AgentNames(hop).refuse_unknown(somebody(), BODY % b"nobody")
