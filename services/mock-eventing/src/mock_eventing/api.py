"""The HTTP routes: the ingress of Knative's data plane, and the counts of each trigger for operators."""

import asyncio
import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response

from mock_eventing.domain.binary import read_binary
from mock_eventing.domain.events import Event
from mock_eventing.domain.structured import BATCHED, STRUCTURED, read_batch, read_structured
from mock_eventing.domain.triggers import Address
from mock_eventing.errors import BrokerNotFound, Malformed, NotAccepted, UnsupportedFormat
from mock_eventing.usecases.accept_events import Broker
from shared_clients.headers import bearer_token, content_length, media_type
from shared_models.problems import Problem, Problems

CLOUDEVENTS: Final = "application/cloudevents"

router = APIRouter()


@dataclass(frozen=True, slots=True)
class RouteDependencies:
    """The dependencies of the routes.

    Attributes:
        broker: accepts events.
        secret: the bearer token that requests have to carry; an empty text means that they need none.
        body_bytes: the largest body of a request, which a request without a Content-Length is counted for.
        batch_events: the most events of one batch.
    """

    broker: Broker
    secret: str
    body_bytes: int
    batch_events: int


async def route_dependencies(request: Request) -> RouteDependencies:
    """Return the dependencies of the routes, for a request with the right bearer token."""
    dependencies: RouteDependencies = request.app.state.dependencies
    lines = request.headers.getlist("authorization")
    secret = (bearer_token(lines[0]) if len(lines) == 1 else None) or ""
    if dependencies.secret and not hmac.compare_digest(secret.encode(), dependencies.secret.encode()):
        expected = "expected Authorization: Bearer and the secret that broker and services share"
        raise Problem(Problems.NO_IDENTITY, expected, headers={"WWW-Authenticate": "Bearer"})
    return dependencies


Dependencies = Annotated[RouteDependencies, Depends(route_dependencies)]


@router.post("/", status_code=202)
async def publish(request: Request, dependencies: Dependencies) -> Response:
    """Accept CloudEvents for the file's only broker, or for default/default among several."""
    return await _publish(request, dependencies, None)


@router.post("/{namespace}/{broker}", status_code=202)
async def publish_to(request: Request, dependencies: Dependencies, namespace: str, broker: str) -> Response:
    """Accept CloudEvents for one broker."""
    return await _publish(request, dependencies, Address(namespace, broker))


@router.get("/triggers")
async def triggers(dependencies: Dependencies) -> list[dict[str, object]]:
    """Return for each trigger the number of its events by outcome."""
    return [
        {
            "name": deliveries.trigger.name,
            "broker": str(deliveries.trigger.broker),
            "subscriber": deliveries.trigger.uri,
            "on_their_way": deliveries.pending,
            **deliveries.counts,
        }
        for deliveries in dependencies.broker.deliveries
    ]


async def _publish(request: Request, dependencies: RouteDependencies, address: Address | None) -> Response:
    broker = dependencies.broker
    with _problems():
        length = content_length(request.headers.getlist("content-length"))
        with broker.reserving_bytes(dependencies.body_bytes if length is None else length):
            events = _read(request, await request.body())
            if len(events) > dependencies.batch_events:
                detail = f"The batch has {len(events)} events; at most {dependencies.batch_events} are allowed."
                raise Problem(Problems.BODY_TOO_LARGE, detail)
            await _accept_while_connected(request, broker, address, events)
    return Response(status_code=202)


def _read(request: Request, body: bytes) -> Sequence[Event]:
    media = media_type(request.headers.get("content-type", ""))
    form = media.name
    if not form.startswith(CLOUDEVENTS):
        return [read_binary(request.headers.raw, body)]
    if form not in {STRUCTURED, BATCHED}:
        raise UnsupportedFormat(f"{form[:80]} is not supported; expected {STRUCTURED}, {BATCHED} or binary mode")
    if media.parameters.get("charset", "utf-8").lower() not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedFormat("the charset of JSON is not supported; expected UTF-8")
    return read_batch(body) if form == BATCHED else [read_structured(body)]


async def _accept_while_connected(
    request: Request, broker: Broker, address: Address | None, events: Sequence[Event]
) -> None:
    """Accept events; if the sender disconnects meanwhile, cancel the deliveries, and the events stay the sender's."""
    accepting = asyncio.create_task(broker.accept(address, events))
    disconnecting = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({accepting, disconnecting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        disconnecting.cancel()
        cancelled = accepting.cancel()
        outcome, _ = await asyncio.gather(accepting, disconnecting, return_exceptions=True)
    if cancelled:
        raise NotAccepted("the sender disconnected before the event was delivered")
    if outcome is not None:
        raise outcome


async def _disconnected(request: Request) -> None:
    """Return when the sender has closed the connection; after its body, no other ASGI message comes."""
    await request.receive()


@contextmanager
def _problems() -> Iterator[None]:
    """Translate the broker's errors to problem details."""
    try:
        yield
    except Malformed as error:
        faults = tuple({"pointer": fault.pointer, "detail": fault.detail} for fault in error.faults[:20])
        raise Problem(Problems.BAD_REQUEST, f"not a valid CloudEvent: {error}", errors=faults) from None
    except UnsupportedFormat as error:
        raise Problem(Problems.UNSUPPORTED_MEDIA_TYPE, str(error)) from None
    except BrokerNotFound as error:
        raise Problem(Problems.NOT_FOUND, str(error)) from None
    except NotAccepted as error:
        again = {"Retry-After": str(error.retry_after)}
        raise Problem(Problems.UNAVAILABLE, f"{error}; send it again", headers=again) from None
