"""Concurrency: bounds the requests in progress in this process, by stage, and the long-lived requests of each tenant.

A request whose body is still arriving, a request that is being worked on, and a request that only waits (a stream, or a
call that waits for a result) cost different resources, so each stage has its own bound. Five hundred slow uploads must
not keep out a request that has arrived completely, and a thousand open streams must not keep out a new question.
A request to sign in has a stage of its own from its first to its last byte: strangers send it, and they must not keep
out a caller who is signed in.

`ConcurrencyMiddleware` goes around the whole app and gives every request a `ConcurrencySlot`.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from enum import StrEnum
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_gateway.admission.limits import AdmissionLimits, jittered_seconds, limit_reached, overloaded
from service_process.web import PROBES, problem_response
from shared_clients.headers import content_length, lines_of
from shared_clients.loops import Tasks
from shared_models.problems import Problem, Problems

SLOT_KEY: Final = "flotilla.concurrency_slot"
"""The key of a request's slot in its ASGI scope."""
SIGN_IN_PATH: Final = "/auth/link"
"""The one route with a body for strangers: the other routes identify the caller before they read a body."""
RETRY_SECONDS: Final = 1.0
"""The wait before a refused request is worth another try; requests end at unknown times, so this is a guess."""


class Stage(StrEnum):
    """The stages of a request, named as the metric of refusals counts them."""

    RECEIVING = "receiving"
    IN_FLIGHT = "in_flight"
    OPEN = "open"
    SIGNING_IN = "signing_in"


class ConcurrencySlot:
    """One request, as its limiter counts it.

    Attributes:
        stage: the stage under which the request is counted; None once it has ended.
        tenant: the tenant under which an open request is counted.
        response_headers: headers that the middleware adds to the request's response.
    """

    def __init__(self) -> None:
        self.stage: Stage | None = None
        self.tenant = ""
        self.response_headers: list[tuple[bytes, bytes]] = []


class ConcurrencyLimiter:
    """Counts the requests in progress in this process and refuses those over a limit.

    Args:
        limits: the numbers.
    """

    def __init__(self, limits: AdmissionLimits) -> None:
        self._limits = {
            Stage.RECEIVING: limits.receiving,
            Stage.IN_FLIGHT: limits.in_flight,
            Stage.OPEN: limits.open,
            Stage.SIGNING_IN: limits.signing_in,
        }
        self._tenant_limit = max(1, limits.tenant_open // limits.replicas)
        self._counts = dict.fromkeys(Stage, 0)
        self._open_by_tenant = Counter[str]()

    def in_progress(self, stage: Stage) -> int:
        """Return the number of requests in a stage."""
        return self._counts[stage]

    def acquire(self, stage: Stage) -> ConcurrencySlot:
        """Return a slot for a new request.

        Raises:
            Problem: OVERLOADED: the process has no capacity to receive the body, or to work on the request.
        """
        self._refuse_if_full(stage)
        if stage is Stage.RECEIVING:
            self._refuse_if_full(Stage.IN_FLIGHT)
        slot = ConcurrencySlot()
        self._move(slot, stage)
        return slot

    def body_received(self, slot: ConcurrencySlot) -> None:
        """Count a request whose body has arrived among the requests that are being worked on."""
        if slot.stage is Stage.RECEIVING:
            self._move(slot, Stage.IN_FLIGHT)

    def keep_open(self, slot: ConcurrencySlot, tenant: str) -> None:
        """Count a request among the streams and waiting calls, which may last long.

        Raises:
            Problem: TOO_MANY_OPEN: the tenant has too many of them. OVERLOADED: this process has too many of them.
        """
        if self._open_by_tenant[tenant] >= self._tenant_limit:
            detail = (
                f"This tenant already has {self._tenant_limit} streams and waiting calls open on this gateway, "
                "which is the limit. Close one of them, or poll for the result without waiting."
            )
            retry_after = jittered_seconds(RETRY_SECONDS)
            raise limit_reached("tenant_open", Problems.TOO_MANY_OPEN, detail, retry_after)
        self._refuse_if_full(Stage.OPEN)
        self._move(slot, Stage.OPEN, tenant)

    def release(self, slot: ConcurrencySlot) -> None:
        """Stop counting a request; a second call has no effect."""
        self._move(slot, None)

    def _refuse_if_full(self, stage: Stage) -> None:
        if self._counts[stage] >= self._limits[stage]:
            raise overloaded(stage.value, RETRY_SECONDS)

    def _move(self, slot: ConcurrencySlot, stage: Stage | None, tenant: str = "") -> None:
        if slot.stage is stage:
            return
        if slot.stage is not None:
            self._counts[slot.stage] -= 1
        if slot.stage is Stage.OPEN:
            self._open_by_tenant[slot.tenant] -= 1
            if not self._open_by_tenant[slot.tenant]:
                del self._open_by_tenant[slot.tenant]  # else memory grows with every tenant
        if stage is not None:
            self._counts[stage] += 1
        if stage is Stage.OPEN:
            self._open_by_tenant[tenant] += 1
        slot.stage, slot.tenant = stage, tenant


class ConcurrencyMiddleware:
    """Gives every request a slot, or refuses it with 503.

    Plain ASGI and outermost, because a refusal has to cost next to nothing: the caller is not identified before it.
    Probes are never refused, because a busy process is still a healthy one.
    """

    def __init__(self, app: ASGIApp, limiter: ConcurrencyLimiter) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        try:
            slot = self._limiter.acquire(_first_stage(scope))
        except Problem as problem:
            await problem_response(scope, problem)(scope, receive, send)
            return
        await self._run(slot, scope, receive, send)

    async def _run(self, slot: ConcurrencySlot, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_body() -> Message:
            message = await receive()
            if not message.get("more_body", False):
                self._limiter.body_received(slot)
            return message

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start" and slot.response_headers:
                message = {**message, "headers": [*message["headers"], *slot.response_headers]}
            await send(message)

        scope[SLOT_KEY] = slot
        try:
            await self._app(scope, receive_body, send_with_headers)
        finally:
            self._limiter.release(slot)


def slot_of(scope: Scope) -> ConcurrencySlot:
    """Return the slot that the middleware gave a request."""
    slot: ConcurrencySlot = scope[SLOT_KEY]
    return slot


async def run_while_connected[T](receive: Receive, work: Coroutine[None, None, T]) -> T:
    """Return the result of the work; when the client leaves first, cancel the work and so free its slot.

    Args:
        receive: of a request whose body was read to its end.
        work: an answer that only this client waits for.

    Raises:
        ClientDisconnect: the client left.
    """
    connected = asyncio.timeout(None)

    async def end_with_the_client() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        connected.reschedule(0)

    try:
        async with connected, Tasks() as tasks:
            tasks.start("watch a waiting client", end_with_the_client)
            return await work
    except TimeoutError:
        if not connected.expired():
            raise
        raise ClientDisconnect from None


def _first_stage(scope: Scope) -> Stage:
    if scope["path"] == SIGN_IN_PATH:
        return Stage.SIGNING_IN
    return Stage.RECEIVING if _has_body(scope) else Stage.IN_FLIGHT


def _has_body(scope: Scope) -> bool:
    if any(name == b"transfer-encoding" for name, _ in scope["headers"]):
        return True
    lines = lines_of(scope["headers"], b"content-length")
    return bool(lines) and content_length(lines) != 0
