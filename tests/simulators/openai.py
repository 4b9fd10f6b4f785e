"""A provider simulator: OpenAI's chat completions on a real socket, with every way in which a provider fails.

Tests use it with the real SDK; process tests start it as `python -m tests.simulators.openai --port P`. What a call gets
is a `Behaviour`: queued for its model, or written in the model's name or the last message of the person:

    model "sim:cut_after=3"          prompt "hello [sim status=429 times=2]"

It is as strict about histories as the real API, and logs each call (`GET /log`, `DELETE /log`).
"""

import argparse
import asyncio
import json
import re
import signal
import socket
import struct
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Self

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from tests.simulators.openai_wire import Behaviour, Call, Json, ToolUse, chunk, invalid, last_said, usage_chunk

BAD_KEY = "sk-refused"
_DIRECTIVE = re.compile(r"\[sim ([^\]]*)\]")
_TOKEN = re.compile(r"\s*\S+|\s+$")


class Simulator:
    """The server and its log; use as a context manager."""

    def __init__(self, port: int = 0, models: Sequence[str] = ("sim-embed", "sim")) -> None:
        self._models = models
        self.calls: list[Call] = []
        self.changed = asyncio.Condition()
        self._port = port
        self._queued: dict[str, deque[Behaviour]] = defaultdict(deque)
        self._seen: Counter[str] = Counter()
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._complete),
                web.get("/v1/models", self._list_models),
                web.get("/log", self._show_log),
                web.delete("/log", self._clear_log),
                web.post("/behaviours/{model}", self._queue_behaviours),
            ]
        )
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.2)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """What OPENAI_BASE_URL should be."""
        return f"http://127.0.0.1:{self._port}/v1"

    def behave(self, model: str, *behaviours: Behaviour) -> None:
        """Queue what the next calls of a model get; after them it echoes."""
        self._queued[model].extend(behaviours)

    async def ended(self, number: int) -> Call:
        """Wait until the call of that number (from 1) is over."""
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.calls) >= number and self.calls[number - 1].ended is not None)
        return self.calls[number - 1]

    async def _list_models(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") == BAD_KEY:
            return web.json_response({"error": {"message": f"Incorrect API key provided: {BAD_KEY}"}}, status=401)
        data = [{"id": name, "object": "model"} for name in self._models]
        return web.json_response({"object": "list", "data": data})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body: Json = await request.json()
        tools = [tool["function"]["name"] for tool in body.get("tools", [])]
        call = Call(len(self.calls) + 1, body["model"], body["messages"], tools, body)
        self.calls.append(call)
        try:
            return await self._answer(request, call)
        except (asyncio.CancelledError, ConnectionError) as gone:
            call.outcome = "disconnected" if call.outcome == "open" else call.outcome
            if isinstance(gone, asyncio.CancelledError):
                raise
            return web.Response()  # nobody is there to read it
        finally:
            call.ended = time.monotonic()
            async with self.changed:
                self.changed.notify_all()

    async def _answer(self, request: web.Request, call: Call) -> web.StreamResponse:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if key in {"", BAD_KEY}:
            return _refuse(call, 401, "invalid_api_key", f"Incorrect API key provided: {key}")
        if (fault := invalid(call.messages)) is not None:
            return _refuse(call, 400, "invalid_request", fault)
        behaviour = self._behaviour(call)
        await asyncio.sleep(behaviour.start_ms / 1000)
        if behaviour.status is not None:
            waits = {"Retry-After": behaviour.retry_after, "retry-after-ms": behaviour.retry_after_ms}
            headers = {name: str(wait) for name, wait in waits.items() if wait is not None}
            code = behaviour.code or {429: "rate_limit_exceeded"}.get(behaviour.status, "server_error")
            return _refuse(call, behaviour.status, code, "Simulated.", headers=headers)
        return await _stream(request, call, behaviour)

    def _behaviour(self, call: Call) -> Behaviour:
        if self._queued[call.model]:
            return self._queued[call.model].popleft()
        directive = call.model.partition(":")[2]
        if found := _DIRECTIVE.search(last_said(call.messages)):
            directive = found[1]
        if not directive:
            return Behaviour()
        pairs = dict(pair.split("=", 1) for pair in re.split(r"[\s,]+", directive.strip()))
        behaviour = Behaviour.model_validate_strings(pairs)
        self._seen[directive] += 1
        return Behaviour() if behaviour.times and self._seen[directive] > behaviour.times else behaviour

    async def _show_log(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(call) for call in self.calls])

    async def _clear_log(self, _: web.Request) -> web.Response:
        self.calls.clear()
        self._queued.clear()
        self._seen.clear()
        return web.Response(status=204)

    async def _queue_behaviours(self, request: web.Request) -> web.Response:
        try:
            queued = TypeAdapter(list[Behaviour]).validate_json(await request.read())
        except ValidationError as error:
            return web.Response(status=422, text=str(error))
        self.behave(request.match_info["model"], *queued)
        return web.Response(status=204)


def _refuse(
    call: Call, status: int, code: str, message: str, *, headers: dict[str, str] | None = None
) -> web.StreamResponse:
    call.outcome = str(status)
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)


def _reply(call: Call, behaviour: Behaviour) -> tuple[str, tuple[ToolUse, ...]]:
    last = call.messages[-1]
    if behaviour.tool is not None:
        if last["role"] == "tool":
            return f"The tool says: {last['content']}", ()
        return "", (ToolUse(name=behaviour.tool),)
    if behaviour.words is not None:
        return " ".join(f"w{number}" for number in range(behaviour.words)), behaviour.calls
    if behaviour.text is not None:
        return behaviour.text, behaviour.calls
    return ("" if behaviour.calls else f"You said: {last_said(call.messages)}"), behaviour.calls


async def _stream(request: web.Request, call: Call, behaviour: Behaviour) -> web.StreamResponse:
    text, calls = _reply(call, behaviour)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    faults = {
        behaviour.stall_after: "stall",
        behaviour.cut_after: "cut",
        behaviour.reset_after: "reset",
        behaviour.malformed_after: "malformed",
        behaviour.error_after: "error",
    }
    tokens = [*_TOKEN.findall(text), None]
    await response.write(chunk(call, {"role": "assistant", "content": ""}))
    for token in tokens:
        if (fault := faults.get(call.sent)) is not None:
            await _break(request, response, call, fault)
            return response
        if token is not None:
            await asyncio.sleep(behaviour.token_ms / 1000)
            await response.write(chunk(call, {"content": token}))
            call.sent += 1
    for index, use in enumerate(calls):
        async for delta in _call_deltas(call, index, use):
            await response.write(chunk(call, {"tool_calls": [delta]}))
    finish = behaviour.finish or ("tool_calls" if calls else "stop")
    await response.write(chunk(call, {}, finish=finish))
    if (call.body.get("stream_options") or {}).get("include_usage"):
        await response.write(usage_chunk(call))
    await response.write(b"data: [DONE]\n\n")
    call.outcome = "done"
    return response


async def _call_deltas(call: Call, index: int, use: ToolUse) -> AsyncIterator[Json]:
    """Send a tool call as OpenAI does: id and name first, then the arguments in pieces."""
    call_id = use.id or f"call_{call.number}_{index}"
    yield {"index": index, "id": call_id, "type": "function", "function": {"name": use.name, "arguments": ""}}
    for place in range(0, len(use.arguments), 7):
        yield {"index": index, "function": {"arguments": use.arguments[place : place + 7]}}


async def _break(request: web.Request, response: web.StreamResponse, call: Call, fault: str) -> None:
    if fault == "stall":
        await asyncio.Event().wait()
    call.outcome = fault
    if fault == "malformed":
        await response.write(b'data: {"id": "x", "choi\n\n')
    if fault == "error":
        error = {"message": "Simulated.", "type": "server_error", "param": None, "code": "server_error"}
        await response.write(b"data: " + json.dumps({"error": error}).encode() + b"\n\n")
    if fault == "reset":
        transport = request.transport
        assert transport is not None
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


async def _serve(port: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with Simulator(port) as simulator:
        print(simulator.url, flush=True)
        await stopped.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_serve(parser.parse_args().port))
