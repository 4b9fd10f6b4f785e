"""The hop to a service in the same process: a fresh identity, the client's body, and no credentials of the client."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from httpx import ASGITransport, AsyncClient
from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from api_gateway.hop import Call, Hop
from shared_clients.identity import IDENTITY_HEADER, Identity, Issuer, Verifier
from shared_models.ids import new_id
from shared_models.requests import Principal
from tests.simulators.asking import somebody
from tests.simulators.calling import KEY, trusted

NAME = "request-manager"


class Echo:
    """A service that answers with the request it got, after its verifier accepted the identity."""

    def __init__(self) -> None:
        self.verifier = Verifier(NAME, trusted(NAME))
        self.identities: list[Identity] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.identities.append(self.verifier.verify(request.headers[IDENTITY_HEADER], scope["method"], scope["path"]))
        received = {
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "headers": sorted(name.decode() for name, _ in scope["headers"]),
            "body": (await request.body()).decode(),
        }
        headers = [(b"content-type", b"text/x-echo"), (b"x-more", b"1"), (b"x-more", b"2")]
        await send({"type": "http.response.start", "status": 418, "headers": headers})
        await send({"type": "http.response.body", "body": to_json(received), "more_body": False})


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def hop(echo: Echo) -> Hop:
    return Hop({NAME: echo}, Issuer("api-gateway", KEY))


ENDING_HERE: Sequence[tuple[bytes, bytes]] = [
    (name, b"x")
    for name in (
        *(b"authorization", b"cookie", b"connection", b"keep-alive", b"te", b"upgrade", b"trailer", b"expect"),
        *(b"transfer-encoding", b"proxy-authorization", b"proxy-connection", b"host", b"traceparent", b"tracestate"),
        b"flotilla-identity",
    )
]


async def test_call_sends_body_query_and_headers_and_returns_the_complete_answer(hop: Hop) -> None:
    call = Call("POST", "/api/v1/requests", b"the body", b"a=1&b=%20", [(b"x-mine", b"1"), *ENDING_HERE])
    answer = await hop.call(NAME, somebody(), call)
    assert answer.status == 418
    assert answer.headers == [(b"content-type", b"text/x-echo"), (b"x-more", b"1"), (b"x-more", b"2")]
    received = from_json(answer.body)
    assert (received["path"], received["query"], received["body"]) == ("/api/v1/requests", "a=1&b=%20", "the body")
    assert set(received["headers"]) - {"traceparent", "tracestate"} == {"flotilla-identity", "host", "x-mine"}
    response = answer.response()
    assert response.status_code == 418
    assert response.headers.getlist("x-more") == ["1", "2"]


async def test_each_call_has_a_fresh_identity_with_the_caller_and_the_vouched_sessions(hop: Hop, echo: Echo) -> None:
    one, two, session = somebody(), somebody(), new_id()
    for principal, sessions in ((one, frozenset[UUID]()), (two, frozenset({session})), (one, frozenset[UUID]())):
        forged = Issuer("api-gateway", KEY).issue(two, audience=NAME, method="GET", path="/x")
        headers = [(IDENTITY_HEADER.lower().encode(), forged.encode())]
        await hop.call(NAME, principal, Call("GET", "/x", headers=headers, sessions=sessions))
    assert [identity.principal for identity in echo.identities] == [one, two, one]
    assert [identity.sessions for identity in echo.identities] == [frozenset(), {session}, frozenset()]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/api/v1/requests/a", "/api/v1/requests/a%20b", "/api/v1/requests/%C3%BC%3Fx%3D1"])
async def test_forwarding_passes_a_call_through_unchanged(hop: Hop, echo: Echo, method: str, path: str) -> None:
    principal: Principal = somebody()

    async def gateway(scope: Scope, receive: Receive, send: Send) -> None:
        await hop.forward(NAME, principal, Request(scope, receive))(scope, receive, send)

    async with AsyncClient(transport=ASGITransport(gateway), base_url="http://gateway") as client:
        answer = await client.request(method, f"{path}?a=1&a=2", content=b"the body", headers={"Cookie": "secret"})
    assert answer.status_code == 418
    assert answer.headers.get_list("x-more") == ["1", "2"]
    received = answer.json()
    assert (received["query"], received["body"]) == ("a=1&a=2", "the body")
    assert "cookie" not in received["headers"]
    assert echo.identities[0].principal == principal
