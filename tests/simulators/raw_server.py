"""A server that answers a POST with exactly these bytes, over real TCP: what a model's server sends on its bad days.

    async with RawServer(answer) as server: ...   # `answer` gets the request's body and returns what is sent

A whole HTTP response is `bytes`; a list is the body of a streamed one, each part a chunk of its own, with a pause for
each float among them. A list that ends with `CUT` closes without HTTP's last chunk; `HELD` keeps the connection open.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Final, Self

HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
CUT: Final = "cut"
HELD: Final = "held"

type Json = dict[str, object]
type Step = bytes | float | str
type Answer = bytes | Sequence[Step]


def delta(fields: Json, finish: str | None = None, **more: object) -> Json:
    """Return a chunk of OpenAI's protocol with one delta."""
    base: Json = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1764500000, "model": "raw"}
    return {**base, "choices": [{"index": 0, "delta": fields, "finish_reason": finish}], **more}


def events(*objects: object) -> list[Step]:
    """Return each object as one server-sent event; bytes are its data as they are."""
    data = [found if isinstance(found, bytes) else json.dumps(found).encode() for found in objects]
    return [b"data: " + found + b"\n\n" for found in data]


DONE: Final = b"data: [DONE]\n\n"


def said(*words: str, finish: str = "stop") -> list[Step]:
    """Return the events of a whole answer, without the last."""
    return events(*(delta({"content": word}) for word in words), delta({}, finish))


def refusal(status: str, body: Json) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + content


class RawServer:
    """The server, and the bodies it got; use as a context manager."""

    def __init__(self, answer: Callable[[Json], Answer], content_type: str = "text/event-stream") -> None:
        self.bodies: list[Json] = []
        self._answer = answer
        self._type = content_type

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            [length] = [
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-l")
            ]
            body: Json = json.loads(await reader.readexactly(length))
            self.bodies.append(body)
            await self._play(self._answer(body), reader, writer)
        except ConnectionError:
            return  # the asker has what it wanted
        finally:
            writer.close()

    async def _play(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
            return
        writer.write(HEAD % self._type.encode())
        for step in answer:
            if step == HELD:
                await reader.read()  # until the asker goes
            if isinstance(step, float):
                await writer.drain()
                await asyncio.sleep(step)
            elif isinstance(step, bytes):
                writer.write(b"%x\r\n%s\r\n" % (len(step), step))
                await writer.drain()
        if CUT not in answer:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
