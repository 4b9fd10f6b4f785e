"""The answers of the ingress to a sender, over a socket."""

import asyncio
import json

import pytest

from tests.simulators.eventing import SECRET, brokering, sending, trigger
from tests.simulators.subscribers import answering, subscribing, waiting

EVENT = b'{"specversion":"1.0","id":"%d","source":"/tests","type":"t"}'
BINARY = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/tests", "ce_type": "t"}
STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
NO_MATCH = trigger("a", "http://127.0.0.1:1/events", wants="{type: nothing-has-it}")


@pytest.mark.parametrize("secret", ["", "another-secret-than", SECRET + "x", SECRET[:-1]])
async def test_request_without_the_secret_is_refused(secret: str) -> None:
    async with brokering(NO_MATCH) as broker, sending(broker.sender.url, secret) as stranger:
        answer = await stranger.publish()
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert json.loads(answer.body)["title"] == "No valid identity was given"
        async with stranger.session.get(f"{stranger.url}/triggers") as looked:
            assert looked.status == 401
        async with stranger.session.get(f"{stranger.url}/readyz") as ready:
            assert ready.status == 200


async def test_broker_without_a_secret_accepts_requests_and_sends_no_token() -> None:
    async with subscribing() as subscriber, brokering(trigger("a", subscriber.uri), events_secret=None) as broker:
        async with sending(broker.sender.url, "") as anybody:
            assert (await anybody.publish()).status == 202
        assert "authorization" not in subscriber.received[0].headers


@pytest.mark.parametrize(
    ("body", "headers", "status", "expected"),
    [
        (b"{}", {"content_type": "application/json"}, 400, "hold no CloudEvent"),
        (b"", {}, 400, "hold no CloudEvent"),
        (b"", {**BINARY, "ce_id": ""}, 400, "ce-id: is empty"),
        (b"", {**BINARY, "ce_specversion": "0.3"}, 400, "ce-specversion: is '0.3'; expected '1.0'"),
        (b"{}", {"content_type": STRUCTURED}, 400, "/specversion: is required and missing (and 3 more)"),
        (b"[{}]", {"content_type": BATCHED}, 400, "/0/specversion: is required"),
        (b"{", {"content_type": f"{STRUCTURED}; charset=utf-8"}, 400, "expected a JSON value"),
        (b"x", {"content_type": "application/cloudevents+avro"}, 415, "application/cloudevents+avro is not supported"),
        (b"x", {"content_type": "Application/CloudEvents-batch+avro"}, 415, "cloudevents-batch+avro is not supported"),
        (b"x", {"content_type": "application/cloudevents"}, 415, "application/cloudevents is not supported"),
        (b"{}", {"content_type": f"{STRUCTURED}; charset=utf-16"}, 415, "charset of JSON is not supported"),
        (b"{}", {**BINARY, "content_encoding": "gzip"}, 415, "Content-Encoding"),
        (b"x" * 65_537, BINARY, 413, "65536 bytes at most"),
    ],
)
async def test_refusal_names_its_reason_as_a_problem(
    body: bytes, headers: dict[str, str], status: int, expected: str
) -> None:
    async with brokering(NO_MATCH, body_bytes=65_536) as broker:
        answer = await broker.sender.post(body, **headers)
        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
        assert expected in json.loads(answer.body)["detail"]


async def test_every_fault_is_listed_with_its_pointer() -> None:
    async with brokering(NO_MATCH) as broker:
        answer = await broker.sender.post(ce_id="1", ce_time="now")
        pointers = {fault["pointer"] for fault in json.loads(answer.body)["errors"]}
        assert pointers == {"ce-specversion", "ce-source", "ce-type", "ce-time"}


async def test_a_body_without_a_length_is_counted_as_it_comes() -> None:
    async def endless() -> object:
        for _ in range(100):
            yield b"x" * 1024

    async with brokering(NO_MATCH, body_bytes=65_536) as broker:
        headers = {name.replace("_", "-"): value for name, value in BINARY.items()}
        async with broker.sender.session.post(broker.sender.url, data=endless(), headers=headers) as response:
            assert response.status == 413


async def test_the_only_broker_is_at_the_root_and_each_at_its_own_address() -> None:
    async with subscribing() as subscriber:
        only = trigger("a", subscriber.uri).replace("broker: default", "broker: main")
        async with brokering(only) as broker:
            for path in ("/", "/default/main"):
                assert (await broker.sender.publish(path=path)).status == 202
            answer = await broker.sender.publish(path="/default/default")
            assert (answer.status, "there are /default/main" in answer.body) == (404, True)
            assert len(subscriber.received) == 2


async def test_of_several_brokers_the_default_is_at_the_root() -> None:
    async with subscribing() as first, subscribing() as second:
        other = trigger("b", second.uri).replace("broker: default", "broker: main")
        async with brokering(trigger("a", first.uri), other) as broker:
            assert (await broker.sender.publish("1")).status == 202
            assert (await broker.sender.publish("2", path="/default/main")).status == 202
        assert (first.ids, second.ids) == (["1"], ["2"])
        third = other.replace("name: b", "name: c").replace("broker: main", "broker: third")
        async with brokering(other, third) as broker:
            assert (await broker.sender.publish("3")).status == 404


async def test_a_batch_is_accepted_whole() -> None:
    async with subscribing() as subscriber, brokering(trigger("a", subscriber.uri), trigger_events=50) as broker:
        batch = b"[" + b",".join(EVENT % number for number in range(50)) + b"]"
        assert (await broker.sender.post(batch, content_type=BATCHED)).status == 202
        assert sorted(subscriber.ids, key=int) == [str(number) for number in range(50)]
        assert (await broker.sender.post(b"[]", content_type=BATCHED)).status == 202
        larger = b"[" + b",".join(EVENT % number for number in range(51)) + b"]"
        refused = await broker.sender.post(larger, content_type=BATCHED)
        assert (refused.status, "at most 50 are allowed" in refused.body) == (413, True)
        assert len(subscriber.received) == 50


async def test_one_event_that_fails_leaves_the_whole_batch_with_its_sender() -> None:
    async with (
        subscribing() as subscriber,
        brokering(trigger("a", subscriber.uri, delivery="{retry: 0}")) as broker,
    ):
        subscriber.says(answering(202), answering(400), answering(202))
        batch = b"[" + b",".join(EVENT % number for number in range(3)) + b"]"
        assert (await broker.sender.post(batch, content_type=BATCHED)).status == 503
        assert len(subscriber.received) == 3
        assert (await broker.sender.post(batch, content_type=BATCHED)).status == 202
        assert len(subscriber.received) == 6


async def test_a_full_broker_refuses_before_it_reads() -> None:
    async with subscribing() as subscriber:
        gate = asyncio.Event()
        subscriber.says(waiting(gate))
        limits = {"held_bytes": 1_048_576, "body_bytes": 1_000_000}
        async with brokering(trigger("a", subscriber.uri, delivery="{timeout: PT5S}"), **limits) as broker:
            held = asyncio.create_task(broker.sender.publish(body=b"x" * 900_000))
            await subscriber.got()
            host, _, port = broker.sender.url.removeprefix("http://").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            head = (
                f"POST / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {SECRET}\r\nContent-Length: 900000\r\n\r\n"
            )
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in answer
            writer.close()
            gate.set()
            assert (await held).status == 202
            assert (await broker.sender.publish(body=b"x" * 900_000)).status == 202


async def test_what_became_of_events_is_counted() -> None:
    async with subscribing() as subscriber, brokering(trigger("a", subscriber.uri)) as broker:
        await broker.sender.publish()
        assert await broker.sender.triggers() == {
            "a": {
                "name": "default/a",
                "broker": "default/default",
                "subscriber": subscriber.uri,
                "on_their_way": 0,
                "delivered": 1,
                "retried": 0,
                "dead": 0,
                "returned": 0,
            }
        }
        async with broker.sender.session.get(f"{broker.sender.url}/metrics") as response:
            assert 'flotilla_eventing_deliveries_total{outcome="delivered"}' in await response.text()
