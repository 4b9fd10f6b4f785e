"""The HTTP door: the ingress of Knative's data plane, and a page for people that tells how its triggers do."""

import asyncio
import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response

from mock_eventing.domain.binary import read_binary
from mock_eventing.domain.events import Event
from mock_eventing.domain.structured import BATCHED, STRUCTURED, read_batch, read_structured
from mock_eventing.domain.triggers import Address
from mock_eventing.errors import Malformed, NoSuchBroker, NotAccepted, UnsupportedFormat
from mock_eventing.usecases.accept_events import Broker
from shared_models.problems import Problem, Problems

CLOUDEVENTS: Final = "application/cloudevents"

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Means:
    """What the routes need.

    Attributes:
        broker: takes events on.
        secret: the bearer token that senders have to show; none where it is empty.
        body_bytes: of one request, at most; what one without a length is taken for.
        batch_events: of one batch, at most.
    """

    broker: Broker
    secret: str
    body_bytes: int
    batch_events: int


@router.post("/", status_code=202)
async def publish(request: Request) -> Response:
    """Take CloudEvents on, for the only broker or for default/default."""
    return await _publish(request, None)


@router.post("/{namespace}/{broker}", status_code=202)
async def publish_to(request: Request, namespace: str, broker: str) -> Response:
    """Take CloudEvents on, for one broker."""
    return await _publish(request, Address(namespace, broker))


@router.get("/triggers")
async def triggers(request: Request) -> list[dict[str, object]]:
    """Tell of each trigger what became of its events."""
    means = _admit(request)
    return [
        {
            "name": lane.trigger.name,
            "broker": str(lane.trigger.broker),
            "subscriber": lane.trigger.uri,
            "on_their_way": lane.events,
            **lane.counts,
        }
        for lane in means.broker.lanes
    ]


async def _publish(request: Request, address: Address | None) -> Response:
    means = _admit(request)
    with _told():
        length = request.headers.get("content-length", "")
        with means.broker.holding(int(length) if length.isdigit() else means.body_bytes):
            events = _read(request, await request.body())
            if len(events) > means.batch_events:
                raise Problem(Problems.BODY_TOO_LARGE, f"a batch may have {means.batch_events} events at most")
            await _while_awaited(request, means.broker, address, events)
    return Response(status_code=202)


def _admit(request: Request) -> Means:
    means: Means = request.app.state.means
    given = request.headers.get("authorization", "").encode()
    if means.secret and not hmac.compare_digest(given, f"Bearer {means.secret}".encode()):
        expected = "expected Authorization: Bearer and the secret that broker and services share"
        raise Problem(Problems.NO_IDENTITY, expected, headers={"WWW-Authenticate": "Bearer"})
    return means


def _read(request: Request, body: bytes) -> Sequence[Event]:
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    form = media_type.strip().lower()
    if not form.startswith(CLOUDEVENTS):
        return [read_binary(request.headers.raw, body)]
    if form not in {STRUCTURED, BATCHED}:
        raise UnsupportedFormat(f"{form[:80]} is not spoken here; expected {STRUCTURED}, {BATCHED} or binary mode")
    if "charset" in (charset := parameters.replace(" ", "").lower()) and "utf-8" not in charset:
        raise UnsupportedFormat("JSON is in UTF-8; another charset is not spoken here")
    return read_batch(body) if form == BATCHED else [read_structured(body)]


async def _while_awaited(request: Request, broker: Broker, address: Address | None, events: Sequence[Event]) -> None:
    """Accept events until it is done, or the sender has gone: then they are the sender's."""
    accepting = asyncio.create_task(broker.accept(address, events))
    leaving = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({accepting, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        gave_up = accepting.cancel()
        outcome, _ = await asyncio.gather(accepting, leaving, return_exceptions=True)
    if gave_up:
        raise NotAccepted("the sender has gone before the event was delivered")
    if outcome is not None:
        raise outcome


async def _gone(request: Request) -> None:
    """Return when the sender has closed the connection; it has nothing else to say once its body is read."""
    await request.receive()


@contextmanager
def _told() -> Iterator[None]:
    """Turn what can be wrong into what the sender is told."""
    try:
        yield
    except Malformed as error:
        faults = tuple({"pointer": where, "detail": what} for where, what in error.faults[:20])
        raise Problem(Problems.BAD_REQUEST, f"no CloudEvent: {error}", errors=faults) from None
    except UnsupportedFormat as error:
        raise Problem(Problems.UNSUPPORTED_MEDIA_TYPE, str(error)) from None
    except NoSuchBroker as error:
        raise Problem(Problems.NOT_FOUND, str(error)) from None
    except NotAccepted as error:
        again = {"Retry-After": str(error.retry_after)}
        raise Problem(Problems.UNAVAILABLE, f"{error}; send it again", headers=again) from None
