"""The body of a client's request on its way to a service: a small one is held, and a larger one flows.

A body flows only as fast as the service reads it: the next part is taken from the client when the service's connection
has room. So neither a large body nor a slow service costs memory here.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive

HELD_BYTES: Final = 65_536
"""A body up to this size is read before the service is called; a client that leaves meanwhile causes no call."""


class RequestBody:
    """The body of one request.

    Attributes:
        failure: the error that ended the body early, such as a client that left, or a limit that was exceeded.
        answered: set before the end of the answer is sent; a client that leaves after that has everything.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._held = b""
        self._ended = asyncio.Event()
        self.failure: Exception | None = None
        self.answered = False

    async def read_ahead(self) -> None:
        """Read the body to its end, or until `HELD_BYTES` are held.

        Raises:
            ClientDisconnect: the client left before that.
        """
        while not self._ended.is_set() and len(self._held) < HELD_BYTES:
            self._held += await self._next()

    def content(self) -> bytes | AsyncIterator[bytes]:
        """Return the whole body, or an iterator over its parts, which may be used once."""
        return self._held if self._ended.is_set() else self._parts()

    async def wait_until_left(self) -> None:
        """Return when the client has left after its whole body was read."""
        await self._ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _parts(self) -> AsyncIterator[bytes]:
        try:
            if self._held:
                yield self._held
                self._held = b""
            while not self._ended.is_set():
                if part := await self._next():
                    yield part
        except Exception as error:
            self.failure = error
            raise

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if not message.get("more_body", False):
            self._ended.set()
        part: bytes = message.get("body", b"")
        return part


async def while_client_stays(body: RequestBody, work: Awaitable[None]) -> None:
    """Do the work of a request, and cancel it when the client leaves.

    Raises:
        ClientDisconnect: the client left.
        Exception: an error of the work.
    """
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_raise_when_left(body))
            await work
            watching.cancel()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _raise_when_left(body: RequestBody) -> None:
    await body.wait_until_left()
    if not body.answered:
        raise ClientDisconnect
