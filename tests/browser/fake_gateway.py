"""A gateway in one process, for developing and breaking the web chat: real frames, real HTTP, faults on request.

It keeps the gateway's promises (cookie, CSP, cursors, idempotency, beats) and none of its durability. The journeys are
written so that they run on the real fleet as well, which keeps this stand-in honest.
"""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.browser.fake_agent import Cursor, FakeAgent, Run, Session
from tests.browser.fake_operations import FakeOperations
from tests.browser.fake_problems import missing, problem

STATIC = Path(__file__).parents[2] / "services/api-gateway/src/api_gateway/static"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
COOKIE = "flotilla"
UNAVAILABLE = "A system that this service needs does not answer at the moment"


@dataclass
class Faults:
    """What goes wrong next. Each fault is used up by happening.

    Attributes:
        cuts: the next streams end after so many frames.
        refusals: the next call whose "METHOD /path" starts like this gets this status.
        lost_accepts: so many accepts are done, but their answer is lost.
        mute_after: one stream says nothing any more after so many frames, not even a beat.
        repeat: a resumed stream begins so many frames before its cursor.
        listing_waits: the list of sessions comes only once the gates are open.
        unlisted: sessions are not known yet to the service that lists them; holds until it is taken back.
    """

    cuts: list[int] = field(default_factory=list)
    refusals: list[tuple[str, int]] = field(default_factory=list)
    lost_accepts: int = 0
    mute_after: int | None = None
    repeat: int = 0
    listing_waits: bool = False
    unlisted: bool = False

    def refusal_of(self, call: str) -> int | None:
        found = next((refusal for refusal in self.refusals if call.startswith(refusal[0])), None)
        if found is None:
            return None
        self.refusals.remove(found)
        return found[1]

    async def stream(self, run: Run, after: Cursor) -> AsyncIterator[bytes]:
        """The run's frames after a cursor, as a stream with whatever is to go wrong with it."""
        cut = self.cuts.pop(0) if self.cuts else None
        mute, self.mute_after = self.mute_after, None
        seen = sum(1 for cursor, _ in run.frames if cursor <= after)
        place, sent = max(seen - self.repeat, 0), 0
        yield b"retry: 100\n\n"
        while True:
            while place < len(run.frames):
                if sent == cut:
                    return
                if sent == mute:
                    await asyncio.sleep(3600)
                (epoch, sequence), data = run.frames[place]
                yield f"id: {epoch}-{sequence}\ndata: {data}\n\n".encode()
                place, sent = place + 1, sent + 1
            if run.ended:
                return
            yield b": beat\n\n"
            async with run.changed:
                if place == len(run.frames) and not run.ended:
                    await run.changed.wait()


class Routes:
    """The addresses that the page uses."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.runs: dict[str, Run] = {}
        self.keys: dict[str, Run] = {}
        self.codes: set[str] = set()
        self.cookies: set[str] = set()
        self.faults = Faults()
        self.agent = FakeAgent()
        self.page_size = 100
        self.operations = FakeOperations()

    def _reply(self, run: Run, after: Cursor) -> Response:
        headers = {"Flotilla-Execution-Id": run.id, "Flotilla-Session-Id": run.session, "Cache-Control": "no-store"}
        return StreamingResponse(self.faults.stream(run, after), media_type="text/event-stream", headers=headers)

    async def chat(self, request: Request) -> Response:
        body, key = await request.json(), request.headers["Idempotency-Key"]
        run = self.keys.get(key)
        if run is None:
            session = self.sessions.get(body.get("session_id", ""))
            if session is None and "session_id" in body:
                return missing("session")
            session = session or Session(str(uuid4()), body["content"].split("\n")[0][:60])
            self.sessions[session.id] = session
            place = {name: body[name] for name in ("instead_of", "after") if name in body}
            self.keys[key] = run = session.ask(body["content"], **place)
            self.runs[run.id] = run
            self.agent.wake(session)
        if self.faults.lost_accepts > 0:
            self.faults.lost_accepts -= 1
            return problem(503, UNAVAILABLE, "Try again in a moment.")
        return self._reply(run, (0, 0))

    async def resume(self, request: Request) -> Response:
        run = self.runs.get(request.path_params["id"])
        if run is None:
            return missing("request")
        epoch, _, sequence = request.headers.get("Last-Event-ID", "0-0").partition("-")
        return self._reply(run, (int(epoch), int(sequence)))

    async def cancel(self, request: Request) -> Response:
        run = self.runs[request.path_params["id"]]
        run.stop.set()
        if run.status == "accepted":
            await self.agent.finish(run)
        return JSONResponse(run.view(), 202)

    async def list_sessions(self, request: Request) -> Response:
        if self.faults.listing_waits:
            await self.agent.gates.wait()
        limit, before = min(self.page_size, 50), request.query_params.get("before", "~")
        sessions = [] if self.faults.unlisted else self.sessions.values()
        ordered = sorted(sessions, key=lambda each: each.updated_at, reverse=True)
        if (words := request.query_params.get("search")) is not None:
            matching = [(session, session.match(words)) for session in ordered]
            rows = [{**session.row(), "match": match} for session, match in matching if match is not None]
            return JSONResponse({"sessions": rows, "next": None})
        found = [session.row() for session in ordered if session.updated_at < before]
        more = found[limit - 1]["updated_at"] if len(found) > limit else None
        return JSONResponse({"sessions": found[:limit], "next": more})

    async def list_messages(self, request: Request) -> Response:
        session = self.sessions.get(request.path_params["id"])
        if session is None or self.faults.unlisted:
            return missing("session")
        messages = [message for run in session.runs for message in run.messages()]
        end = int(request.query_params.get("before", len(messages)))
        start = max(end - self.page_size, 0)
        return JSONResponse({"messages": messages[start:end], "next": str(start) if start > 0 else None})

    async def session(self, request: Request) -> Response:
        session = self.sessions.get(request.path_params["id"])
        if session is None:
            return missing("session")
        if request.method == "DELETE":
            del self.sessions[session.id]
            return Response(status_code=204)
        session.title = (await request.json())["title"]
        return JSONResponse(session.row())

    async def link_in(self, request: Request) -> Response:
        code = (await request.json())["code"]
        if code not in self.codes:
            return problem(401, "No valid identity was given", "This link was used already, or is too old.")
        self.codes.remove(code)
        cookie = uuid4().hex
        self.cookies.add(cookie)
        response = Response(status_code=204)
        response.set_cookie(COOKIE, cookie, httponly=True, samesite="strict")
        return response

    async def log_out(self, request: Request) -> Response:
        self.cookies.discard(request.cookies.get(COOKIE, ""))
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    async def me(self, _: Request) -> Response:
        return JSONResponse({"subject": "developer", "tenant": "default"})

    async def index(self, _: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    def refuse(self, request: Request) -> Response | None:
        path = request.url.path
        status = self.faults.refusal_of(f"{request.method} {path}")
        if status is not None:
            return problem(status, UNAVAILABLE, "Try again in a moment.")
        if path == "/" or path.startswith("/assets/"):
            return None
        if request.method not in {"GET", "HEAD"} and request.headers.get("Origin") != str(request.base_url).rstrip("/"):
            return problem(403, "The Origin of the request is not ours", f"It was {request.headers.get('Origin')}.")
        if path != "/auth/link" and request.cookies.get(COOKIE) not in self.cookies:
            return problem(401, "No valid identity was given", "Sign in first.")
        return None


class Door:
    """Refuses who may not come in, and sets the headers that the real gateway sets on everything."""

    def __init__(self, app: ASGIApp, routes: Routes) -> None:
        self.app = app
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = CSP
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        app = (self.routes.refuse(Request(scope)) if scope["type"] == "http" else None) or self.app
        await app(scope, receive, sending)


def fake_app(routes: Routes) -> Starlette:
    return Starlette(
        routes=[
            Route("/", routes.index),
            Route("/auth/link", routes.link_in, methods=["POST"]),
            Route("/auth/me", routes.me),
            Route("/auth/logout", routes.log_out, methods=["POST"]),
            Route("/api/v1/dead-letters", routes.operations.list_letters),
            Route("/api/v1/dead-letters/{id}", routes.operations.letter),
            Route("/api/v1/dead-letters/{id}/{how}", routes.operations.settle_letter, methods=["POST"]),
            Route("/api/v1/runs", routes.operations.list_runs),
            Route("/api/v1/runs/{id}", routes.operations.run_report),
            Route("/chat", routes.chat, methods=["POST"]),
            Route("/chat/{id}", routes.resume),
            Route("/api/v1/requests/{id}", routes.cancel, methods=["DELETE"]),
            Route("/api/v1/sessions", routes.list_sessions),
            Route("/api/v1/sessions/{id}/messages", routes.list_messages),
            Route("/api/v1/sessions/{id}", routes.session, methods=["DELETE", "PATCH"]),
            Mount("/assets", StaticFiles(directory=STATIC / "assets")),
        ],
        middleware=[Middleware(Door, routes=routes)],
    )


class FakeGateway(Routes):
    """The fake, served on a free port by its own thread until the `with` block ends."""

    def __init__(self) -> None:
        super().__init__()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://localhost:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(fake_app(self), log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve([self._socket])
        workers = [session.worker for session in self.sessions.values() if session.worker is not None]
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    def open_gates(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.agent.gates.set)

    def link(self) -> str:
        code = uuid4().hex
        self.codes.add(code)
        return f"{self.url}/#code={code}"

    def remember(self, title: str, *turns: tuple[str, str], days_ago: float = 0, channel: str = "web") -> str:
        """Put a conversation of the past into the store; its session id."""
        at = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()
        session = Session(str(uuid4()), title, at, at, channel=channel)
        for question, answer in turns:
            run = session.ask(question)
            run.status, run.answer, run.asked_at, run.ended_at = "completed", answer, at, at
            self.runs[run.id] = run
        session.updated_at = at
        self.sessions[session.id] = session
        return session.id
