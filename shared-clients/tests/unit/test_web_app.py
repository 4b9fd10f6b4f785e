"""The app factory: every way to fail is problem+json, probes tell the truth, and bodies are bounded."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Final

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import StreamingResponse
from httpx import ASGITransport, AsyncClient, Response
from starlette.responses import Response as StarletteResponse
from starlette.types import Message, Scope

from service_process.web import BodyLimits, create_app, draining, parse_body
from shared_clients.errors import Transient, Unknown
from shared_models.problems import Problem, Problems
from shared_models.requests import NewRequest

SECRET: Final = "password=hunter2"
SMALL: Final = BodyLimits(body_bytes=1000, receive_seconds=0.05, ready_seconds=0.05)


class Dependency:
    """Something that a service needs, up or down."""

    def __init__(self) -> None:
        self.down: Exception | None = None
        self.hangs = False

    async def ready(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.down:
            raise self.down


def routes() -> APIRouter:
    router = APIRouter()

    @router.get("/fine")
    async def fine(wait: int = 0) -> int:
        return wait

    @router.post("/echo")
    async def echo(request: Request) -> str:
        body = await parse_body(request, NewRequest)
        return str(body.content)

    @router.get("/stored")
    async def stored(response: StarletteResponse) -> int:
        response.headers["Cache-Control"] = "max-age=60"
        return 1

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError(SECRET)

    @router.get("/outage")
    async def outage() -> None:
        raise Transient(SECRET, retry_after=2.3)

    @router.get("/lost")
    @router.post("/lost")
    async def lost() -> None:
        raise Unknown(SECRET)

    @router.get("/teapot")
    async def teapot() -> None:
        raise Problem(Problems.ALREADY_EXISTS, "it is there", headers={"Location": "/there"})

    @router.get("/cut")
    async def cut() -> StreamingResponse:
        async def half() -> AsyncIterator[bytes]:
            yield b"half an answer"
            raise RuntimeError(SECRET)

        return StreamingResponse(half())

    return router


@pytest.fixture
def dependency() -> Dependency:
    return Dependency()


@pytest.fixture
def app(dependency: Dependency) -> FastAPI:
    return create_app("test", routers=[routes()], ready=dependency.ready, limits=SMALL)


@pytest.fixture
async def client(app: FastAPI) -> AsyncGenerator[AsyncClient]:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client


def assert_problem(answer: Response, slug: str, status: int) -> dict[str, object]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert list(body) == ["type", "title", "status", "detail", "instance", "trace_id", "errors"]
    assert body["type"] == f"urn:flotilla:problem:{slug}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert len(bytes.fromhex(str(body["trace_id"]))) == 16
    assert SECRET not in answer.text
    return body


async def test_no_such_address(client: AsyncClient) -> None:
    body = assert_problem(await client.get("/nowhere?key=1"), "not-found", 404)
    assert body["instance"] == "/nowhere"


async def test_a_slash_too_many_is_another_address(client: AsyncClient) -> None:
    assert_problem(await client.get("/fine/"), "not-found", 404)


async def test_no_such_method(client: AsyncClient) -> None:
    answer = await client.delete("/fine")
    assert_problem(answer, "method-not-allowed", 405)
    assert answer.headers["allow"] == "GET, HEAD"


async def test_every_method_of_an_address_is_allowed_whichever_route_has_it(app: FastAPI, client: AsyncClient) -> None:
    more = APIRouter()
    more.add_api_route("/fine", lambda: None, methods=["PUT"])
    app.include_router(more)
    answer = await client.delete("/fine")
    assert_problem(answer, "method-not-allowed", 405)
    assert answer.headers["allow"] == "GET, HEAD, PUT"


async def test_a_parameter_of_the_wrong_type(client: AsyncClient) -> None:
    body = assert_problem(await client.get("/fine?wait=soon"), "invalid-parameter", 422)
    assert body["errors"] == [
        {"pointer": "/query/wait", "detail": "Input should be a valid integer, unable to parse string as an integer"}
    ]


@pytest.mark.parametrize("address", ["/fine%00", "/fine?wait=%00", "/%00"])
async def test_nul_in_the_address(client: AsyncClient, address: str) -> None:
    assert_problem(await client.get(address), "invalid-parameter", 422)


async def test_a_body_that_is_not_json(client: AsyncClient) -> None:
    answer = await client.post("/echo", content=b"{", headers={"Content-Type": "application/json"})
    assert_problem(answer, "invalid-json", 400)


async def test_a_body_of_another_shape(client: AsyncClient) -> None:
    body = assert_problem(await client.post("/echo", json={"content": ""}), "invalid-body", 422)
    assert "{'pointer': '/content', 'detail': 'String should have at least 1 character'}" in str(body["errors"])


async def test_no_body_where_one_is_needed(client: AsyncClient) -> None:
    assert_problem(await client.post("/echo"), "invalid-json", 400)


@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_json_is_taken_however_it_is_announced(client: AsyncClient, media_type: str) -> None:
    answer = await client.post("/echo", content=b'{"content":"hello"}', headers={"Content-Type": media_type})
    assert answer.json() == "hello"


@pytest.mark.parametrize(
    "media_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", "application/jsonx"],
)
async def test_what_a_foreign_form_could_send_is_not_taken(client: AsyncClient, media_type: str) -> None:
    answer = await client.post("/echo", content=b'{"content":"hello"}', headers={"Content-Type": media_type})
    assert_problem(answer, "unsupported-media-type", 415)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "GZIP"])
async def test_a_packed_body_is_not_unpacked(client: AsyncClient, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    answer = await client.post("/echo", content=b'{"content":"hello"}', headers=headers)
    assert_problem(answer, "unsupported-media-type", 415)


@pytest.mark.parametrize("encoding", ["identity", " Identity "])
async def test_a_body_that_says_that_it_is_not_packed_is_taken(client: AsyncClient, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    assert (await client.post("/echo", content=b'{"content":"hello"}', headers=headers)).is_success


async def test_a_body_that_says_it_is_too_large(client: AsyncClient) -> None:
    body = assert_problem(await client.post("/echo", json={"content": "a" * 1000}), "body-too-large", 413)
    assert "1000 bytes" in str(body["detail"])


async def test_a_body_that_does_not_say_how_large_it_is(client: AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"a" * 100

    answer = await client.post("/echo", content=endless(), headers={"Content-Type": "application/json"})
    assert_problem(answer, "body-too-large", 413)
    assert sent < 20


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "99999999999999999999999999"])
async def test_a_length_that_cannot_be(client: AsyncClient, length: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": length}
    assert_problem(await client.post("/echo", content=b"{}", headers=headers), "body-too-large", 413)


async def test_a_body_of_exactly_the_limit_is_taken(client: AsyncClient) -> None:
    content = b'{"content":"%s"}' % (b"a" * (1000 - 14))
    assert len(content) == 1000
    assert (await client.post("/echo", content=content, headers={"Content-Type": "application/json"})).is_success


async def test_a_body_that_never_ends_is_cut(client: AsyncClient) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b'{"content":'
        await asyncio.Event().wait()

    answer = await client.post("/echo", content=slow(), headers={"Content-Type": "application/json"})
    assert_problem(answer, "receive-timeout", 408)
    assert answer.headers["connection"] == "close"


async def test_a_bug_is_a_500_that_can_be_found_in_the_log(
    client: AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    body = assert_problem(await client.get("/broken"), "internal", 500)
    logged = capsys.readouterr().out
    assert str(body["trace_id"]) in logged
    assert "RuntimeError" in logged


async def test_an_outage_is_a_503_that_says_when_to_come_again(client: AsyncClient) -> None:
    answer = await client.get("/outage")
    assert_problem(answer, "unavailable", 503)
    assert answer.headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("method", "headers", "advice"),
    [
        ("GET", {}, "send it again, which changes nothing"),
        ("POST", {"Idempotency-Key": "k"}, "send it again with the same Idempotency-Key"),
        ("POST", {}, "check its effect before you send it again"),
    ],
)
async def test_a_lost_answer_is_a_503_that_says_how_to_learn_the_outcome(
    client: AsyncClient, method: str, headers: dict[str, str], advice: str
) -> None:
    body = assert_problem(await client.request(method, "/lost", headers=headers), "outcome-unknown", 503)
    assert advice in str(body["detail"])
    assert "may have been carried out" in str(body["detail"])


async def test_a_problem_that_a_route_raises_keeps_its_headers(client: AsyncClient) -> None:
    answer = await client.get("/teapot")
    body = assert_problem(answer, "already-exists", 409)
    assert body["detail"] == "it is there"
    assert answer.headers["location"] == "/there"


async def test_an_answer_that_breaks_in_the_middle_is_not_taken_for_whole(client: AsyncClient) -> None:
    with pytest.raises(RuntimeError):
        await client.get("/cut")


async def test_a_client_that_leaves_while_sending_is_no_bug(app: FastAPI, capsys: pytest.CaptureFixture[str]) -> None:
    sent: list[Message] = []
    coming: Iterator[Message] = iter(
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Message:
        return next(coming)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]
    scope: Scope = {"type": "http", "method": "POST", "path": "/echo", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    assert not sent
    assert "request_crashed" not in capsys.readouterr().out


async def test_livez_does_not_depend_on_anything(client: AsyncClient, dependency: Dependency) -> None:
    dependency.down = Transient(SECRET)
    assert (await client.get("/livez")).status_code == 200


async def test_readyz_follows_the_dependency_of_the_service(client: AsyncClient, dependency: Dependency) -> None:
    assert (await client.get("/readyz")).status_code == 200
    dependency.down = Transient(SECRET)
    assert_problem(await client.get("/readyz"), "unavailable", 503)
    dependency.down = None
    assert (await client.get("/readyz")).status_code == 200


async def test_readyz_does_not_wait_for_a_dependency_that_hangs(client: AsyncClient, dependency: Dependency) -> None:
    dependency.hangs = True
    assert_problem(await client.get("/readyz"), "unavailable", 503)


async def test_a_draining_service_is_alive_and_not_ready(client: AsyncClient, app: FastAPI) -> None:
    draining(app).set()
    assert_problem(await client.get("/readyz"), "unavailable", 503)
    assert (await client.get("/livez")).status_code == 200
    assert (await client.get("/fine")).status_code == 200


async def test_metrics_are_in_the_format_of_prometheus(client: AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "# HELP flotilla_runs_ended_total" in answer.text


async def test_public_app_has_no_metrics(dependency: Dependency) -> None:
    app = create_app("test", routers=[], ready=dependency.ready, public=True)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        assert_problem(await client.get("/metrics"), "not-found", 404)
        assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize("path", ["/fine", "/broken", "/outage", "/nowhere", "/fine?wait=x", "/stored"])
async def test_answer_is_for_no_cache_and_its_type_is_not_guessed(client: AsyncClient, path: str) -> None:
    answer = await client.get(path)
    expected = "max-age=60" if path == "/stored" else "no-store"
    assert answer.headers.get_list("cache-control") == [expected]
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]


async def test_description_is_served_only_where_asked_for_and_no_page_of_somebody_elses_scripts(
    client: AsyncClient, dependency: Dependency
) -> None:
    for address in ("/docs", "/redoc", "/openapi.json"):
        assert_problem(await client.get(address), "not-found", 404)
    open_app = create_app("test", routers=[], ready=dependency.ready, docs=True)
    async with AsyncClient(transport=ASGITransport(open_app), base_url="http://test") as opened:
        assert (await opened.get("/openapi.json")).json()["openapi"] == "3.1.0"
        for page in ("/docs", "/redoc"):
            assert_problem(await opened.get(page), "not-found", 404)


async def test_probes_are_not_in_the_description(app: FastAPI) -> None:
    assert set(app.openapi()["paths"]) == {
        "/fine",
        "/echo",
        "/broken",
        "/outage",
        "/lost",
        "/stored",
        "/teapot",
        "/cut",
    }
