"""A mock-eventing that runs in a test, on a real socket, and the sender that talks to it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp

from mock_eventing.app import open_app
from mock_eventing.domain.triggers import parse_triggers
from mock_eventing.settings import Settings
from service_process.serving import Stop, bind, serve
from service_process.web import draining

SECRET: Final = "a-secret-between-us"
PATIENCE: Final = 20.0
QUICK: Final = "{retry: 3, backoffDelay: PT0.02S, timeout: PT5S}"


def trigger(name: str, uri: str, *, wants: str = "{}", delivery: str = QUICK) -> str:
    """Return a Trigger document; `wants` are its filter's attributes, in YAML."""
    return f"""---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {{name: {name}}}
spec:
  broker: default
  filter: {{attributes: {wants}}}
  subscriber: {{uri: "{uri}"}}
  delivery: {delivery}
"""


@dataclass(frozen=True, slots=True)
class Answered:
    """What the ingress said."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass
class Sender:
    """Somebody who sends to a broker's ingress."""

    url: str
    session: aiohttp.ClientSession

    async def post(self, body: bytes = b"", /, *, path: str = "/", **headers: str) -> Answered:
        """Send what is given; underscores in the names of headers stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.post(self.url + path, data=body, headers=named) as response:
            found = {name.lower(): value for name, value in response.headers.items()}
            return Answered(response.status, found, await response.text())

    async def publish(
        self, id_: str = "1", *, type_: str = "com.example.made", body: bytes = b"{}", path: str = "/"
    ) -> Answered:
        """Send an event in binary mode."""
        attributes = {"ce-specversion": "1.0", "ce-id": id_, "ce-source": "/tests", "ce-type": type_}
        return await self.post(body, path=path, content_type="application/json", **attributes)

    async def triggers(self) -> dict[str, dict[str, int]]:
        """Return what the broker tells about its triggers, by name."""
        async with self.session.get(f"{self.url}/triggers") as response:
            return {one["name"].removeprefix("default/"): one for one in await response.json()}


@dataclass
class Brokering:
    """A broker that runs."""

    sender: Sender
    stop: Stop
    serving: asyncio.Task[None]


@asynccontextmanager
async def sending(url: str, secret: str = SECRET) -> AsyncGenerator[Sender]:
    """Talk to an ingress, over a new connection each time."""
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with aiohttp.ClientSession(
        headers=headers,
        connector=connector,
        skip_auto_headers=("Content-Type",),
        timeout=aiohttp.ClientTimeout(total=PATIENCE),
    ) as session:
        yield Sender(url, session)


@asynccontextmanager
async def brokering(*triggers: str, **settings: object) -> AsyncGenerator[Brokering]:
    """Serve a broker with these Trigger documents at a free port."""
    given = {"mode": "dev", "triggers": "unused", "events_secret": SECRET, "accept_seconds": 10, **settings}
    listener, stop = bind("127.0.0.1", 0), Stop()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    read = parse_triggers("test.yaml", "\n".join(triggers))
    async with open_app(Settings.model_validate(given), read) as app, sending(url) as sender:
        serving = asyncio.create_task(
            serve(app, host="", port=0, draining=draining(app).set, sockets=[listener], stop=stop)
        )
        try:
            yield Brokering(sender, stop, serving)
        finally:
            stop.request()
            await serving
