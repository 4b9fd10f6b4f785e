"""What ours is compared with: the least that does the same durable work, as anybody would write it in an afternoon.

Run as a process: `python -m tests.bench.baseline accept|relay|empty --port P --to URL`. They are kept short, so that
nobody can make ours look good by letting these rot.
"""

import argparse
import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import uvicorn
from pydantic_core import from_json, to_json

from request_manager.queries.accepting import ACCEPT

type Scope = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Accept:
    """Answers 202 after the very statement and commit of our accept, and does nothing else."""

    def __init__(self, to: str) -> None:
        self._to = to
        self._pool: asyncpg.Pool | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if self._pool is None:
            options = {"search_path": "request_manager", "jit": "off"}
            self._pool = await asyncpg.create_pool(self._to, min_size=8, max_size=8, server_settings=options)
        content = from_json((await receive())["body"])["content"]
        request_id, session_id, event_id = uuid4(), uuid4(), str(uuid4())
        key = str(session_id)
        await self._pool.fetchrow(
            ACCEPT, "default", "caller", None, hashlib.sha256(b"").digest(), request_id, session_id, "owner", True,
            '{"subject": "somebody"}', content, None, "{}", datetime.now(UTC) + timedelta(minutes=15),
            event_id, "nowhere", key, '{"id": "x", "type": "y"}', to_json({"content": content}), None, None,
        )  # fmt: skip
        await _answer(send, 202, to_json({"request_id": request_id, "session_id": session_id}))


class Relay:
    """Asks the provider and passes its bytes on: no identity, no store, nothing that survives a crash."""

    def __init__(self, to: str) -> None:
        self._to = to
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self._session = self._session or aiohttp.ClientSession()
        content = from_json((await receive())["body"])["content"]
        asked = {"model": "bench", "stream": True, "messages": [{"role": "user", "content": content}]}
        headers = [(b"content-type", b"text/event-stream")]
        key = {"Authorization": "Bearer sk-bench"}
        async with self._session.post(f"{self._to}/chat/completions", json=asked, headers=key) as answer:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["accept", "relay"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", required=True)
    given = parser.parse_args()
    app: Accept | Relay = Accept(given.to) if given.kind == "accept" else Relay(given.to)
    uvicorn.run(app, port=given.port, log_level="warning", access_log=False, lifespan="off")
