"""The outermost layer of an app: answers stay out of caches, and the trace ids of strangers stay out of ours.

FastAPI reads the trace context of a request before any middleware runs. So a public app removes these headers here.
"""

from typing import Final

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

TRACE_HEADERS: Final = frozenset({b"traceparent", b"tracestate", b"baggage"})
PRIVATE: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
"""Headers of every answer that lacks them: it may hold a person's data, and no browser guesses its type."""


class EdgeApp(FastAPI):
    """An app whose answers are private unless their route says otherwise; strangers may call a public one."""

    public: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.public and scope["type"] in {"http", "websocket"}:
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in TRACE_HEADERS]

        async def send_private(message: Message) -> None:
            await send(_private(message) if message["type"] == "http.response.start" else message)

        await super().__call__(scope, receive, send_private if scope["type"] == "http" else send)


def _private(start: Message) -> Message:
    headers = list(start.get("headers", ()))
    names = {name.lower() for name, _ in headers}
    return {**start, "headers": [*headers, *(pair for pair in PRIVATE if pair[0] not in names)]}
