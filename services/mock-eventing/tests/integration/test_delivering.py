"""What becomes of an event whose subscribers misbehave."""

import asyncio
import json
from base64 import b64decode
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mock_eventing.domain.structured import read_structured
from tests.simulators.eventing import QUICK, brokering, trigger
from tests.simulators.subscribers import (
    Behaviour,
    Subscriber,
    answering,
    hanging,
    resetting,
    subscribing,
    waiting,
)

REFUSALS = [400, 401, 402, 403, 405, 410, 411, 413, 415, 418, 422, 451]
REDIRECTS = [300, 301, 302, 303, 304, 307, 308]


def with_sink(uri: str, **more: str) -> str:
    """Return a delivery with a dead-letter sink."""
    return QUICK[:-1] + f", deadLetterSink: {{uri: '{uri}'}}" + "".join(f", {k}: {v}" for k, v in more.items()) + "}"


async def test_an_event_reaches_who_wants_it_and_nobody_else() -> None:
    async with subscribing() as wants, subscribing() as other:
        triggers = (
            trigger("a", wants.uri, wants="{type: com.example.made}"),
            trigger("b", other.uri, wants="{type: com.example.gone}"),
        )
        async with brokering(*triggers) as broker:
            assert (await broker.sender.publish("7", body=b'{"n":  1.0}')).status == 202
            (received,) = wants.received
            assert (received.id, received.body) == ("7", b'{"n":  1.0}')
            assert received.headers["authorization"] == "Bearer a-secret-between-us"
            assert "prefer" not in received.headers
            assert (await broker.sender.publish("8", type_="com.example.unheard")).status == 202
            assert (len(wants.received), other.received) == (1, [])


@pytest.mark.parametrize("status", [404, 408, 409, 429, 500, 501, 502, 503, 504, 599])
async def test_what_may_pass_is_tried_again(status: int) -> None:
    async with subscribing() as subscriber, brokering(trigger("a", subscriber.uri)) as broker:
        subscriber.says(answering(status), answering(status), answering(202))
        assert (await broker.sender.publish()).status == 202
        assert subscriber.ids == ["1", "1", "1"]
        counts = (await broker.sender.triggers())["a"]
        assert (counts["delivered"], counts["retried"], counts["dead"]) == (1, 2, 0)


@pytest.mark.parametrize("status", [200, 201, 202, 203, 204, 206, 299])
async def test_every_2xx_is_done(status: int) -> None:
    async with subscribing() as subscriber, brokering(trigger("a", subscriber.uri)) as broker:
        subscriber.says(answering(status))
        assert (await broker.sender.publish()).status == 202
        assert subscriber.ids == ["1"]


@pytest.mark.parametrize("status", [*REFUSALS, *REDIRECTS])
async def test_what_will_not_pass_is_dead_at_once(status: int) -> None:
    async with (
        subscribing() as subscriber,
        subscribing() as letters,
        brokering(trigger("a", subscriber.uri, delivery=with_sink(letters.uri))) as broker,
    ):
        subscriber.says(answering(status, "because", location=letters.uri))
        assert (await broker.sender.publish("7", body=b'{"n": 1}')).status == 202
        assert len(subscriber.received) == 1
        (letter,) = letters.received
        assert (letter.id, letter.body) == ("7", b'{"n": 1}')
        assert letter.headers["ce-knativeerrordest"] == subscriber.uri
        assert letter.headers["ce-knativeerrorcode"] == str(status)
        assert b64decode(letter.headers["ce-knativeerrordata"]) == (b"" if status == 304 else b"because")
        assert (await broker.sender.triggers())["a"]["dead"] == 1


@pytest.mark.parametrize("failing", [resetting, hanging])
async def test_a_subscriber_that_does_not_answer_is_tried_again(failing: Behaviour) -> None:
    delivery = "{retry: 3, backoffDelay: PT0.02S, timeout: PT0.5S}"
    async with subscribing() as subscriber, brokering(trigger("a", subscriber.uri, delivery=delivery)) as broker:
        subscriber.says(failing, answering(202))
        assert (await broker.sender.publish()).status == 202
        assert len(subscriber.ids) >= 2


async def test_a_subscriber_that_comes_up_gets_what_waited_for_it() -> None:
    async with subscribing() as gone:
        port = gone.port
    delivery = "{retry: 100, backoffPolicy: linear, backoffDelay: PT0.02S, backoffMax: PT0.05S}"
    async with brokering(trigger("a", gone.uri, delivery=delivery)) as broker:
        publishing = asyncio.create_task(broker.sender.publish())
        while not (await broker.sender.triggers())["a"]["retried"]:
            pass
        async with subscribing(port) as subscriber:
            assert (await publishing).status == 202
            assert subscriber.ids == ["1"]


async def test_retries_end_and_the_letter_says_why() -> None:
    async with (
        subscribing() as subscriber,
        subscribing() as letters,
        brokering(trigger("a", subscriber.uri, delivery=with_sink(letters.uri))) as broker,
    ):
        subscriber.says(answering(503, "x" * 3000))
        letters.says(answering(503), answering(202))
        assert (await broker.sender.publish()).status == 202
        assert len(subscriber.received) == 4
        assert letters.ids == ["1", "1"]
        assert b64decode(letters.received[0].headers["ce-knativeerrordata"]) == b"x" * 1024
        assert (await broker.sender.triggers())["a"]["dead"] == 1


@pytest.mark.parametrize(
    ("failing", "why"), [(resetting, b"the connection failed"), (hanging, b"no answer within 0.2 s")]
)
async def test_no_answer_counts_as_a_500_in_the_letter(failing: Behaviour, why: bytes) -> None:
    async with subscribing() as subscriber, subscribing() as letters:
        subscriber.says(failing)
        delivery = f"{{retry: 0, timeout: PT0.2S, deadLetterSink: {{uri: '{letters.uri}'}}}}"
        async with brokering(trigger("a", subscriber.uri, delivery=delivery), accept_seconds=20) as broker:
            await broker.sender.publish()
        letter = letters.received[0]
        assert letter.headers["ce-knativeerrorcode"] == "500"
        assert why in b64decode(letter.headers["ce-knativeerrordata"])


@pytest.mark.parametrize("sink", [True, False])
async def test_what_cannot_even_be_buried_stays_with_its_sender(sink: bool) -> None:
    async with subscribing() as subscriber, subscribing() as letters:
        delivery = with_sink(letters.uri) if sink else QUICK
        async with brokering(trigger("a", subscriber.uri, delivery=delivery)) as broker:
            subscriber.says(answering(400))
            letters.says(answering(410))
            answer = await broker.sender.publish()
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert answer.headers["content-type"] == "application/problem+json"
            assert "default/a cannot deliver the event" in json.loads(answer.body)["detail"]
            counts = (await broker.sender.triggers())["a"]
            assert (counts["delivered"], counts["dead"], counts["returned"]) == (0, 0, 1)


@pytest.mark.parametrize("sink", [True, False])
async def test_a_file_keeps_what_no_sink_takes(tmp_path: Path, sink: bool) -> None:
    file = tmp_path / "letters.jsonl"
    file.write_bytes(b'{"torn":')
    async with subscribing() as subscriber, subscribing() as letters:
        delivery = with_sink(letters.uri) if sink else QUICK
        async with brokering(trigger("a", subscriber.uri, delivery=delivery), dead_letters=file) as broker:
            subscriber.says(answering(400, "no"))
            letters.says(answering(400))
            for number, body in enumerate((b'{"n": 1}', b'{"n":\n2}', b"\xff")):
                assert (await broker.sender.publish(str(number), body=body)).status == 202
    torn, *lines = file.read_bytes().splitlines()
    assert torn == b'{"torn":'
    kept = [read_structured(line) for line in lines]
    assert [letter.data for letter in kept] == [b'{"n": 1}', b'{"n":\n2}', b"\xff"]
    assert [letter.attributes["knativeerrorcode"] for letter in kept] == ["400"] * 3
    assert file.stat().st_mode & 0o077 == 0 or file.stat().st_size  # one that was there keeps its rights


async def test_a_subscriber_may_ask_for_time_up_to_a_bound() -> None:
    delivery = "{retry: 3, backoffDelay: PT0.01S, retryAfterMax: PT0.3S}"
    async with subscribing() as subscriber, brokering(trigger("a", subscriber.uri, delivery=delivery)) as broker:
        subscriber.says(answering(429, retry_after="3600"), answering(202))
        clock = asyncio.get_running_loop().time
        began = clock()
        assert (await broker.sender.publish()).status == 202
        assert 0.3 <= clock() - began < 5


async def test_a_slow_subscriber_holds_up_nobody_else() -> None:
    async with AsyncExitStack() as stack:
        slow, quick = [await stack.enter_async_context(subscribing()) for _ in range(2)]
        gate = asyncio.Event()
        slow.says(waiting(gate))
        triggers = (
            trigger("slow", slow.uri, wants="{type: both}"),
            trigger("quick", quick.uri, delivery="{timeout: PT5S}"),
        )
        broker = await stack.enter_async_context(brokering(*triggers, trigger_requests=2))
        both = [asyncio.create_task(broker.sender.publish(f"b{n}", type_="both")) for n in range(6)]
        await quick.got(6)
        for number in range(20):
            assert (await broker.sender.publish(f"q{number}", type_="quick")).status == 202
        assert len(slow.received) == 2
        assert (await broker.sender.triggers())["slow"]["on_their_way"] == 6
        gate.set()
        assert {answer.status for answer in await asyncio.gather(*both)} == {202}
        assert sorted(slow.ids) == [f"b{n}" for n in range(6)]


async def test_too_many_events_for_one_subscriber_are_refused_before_anybody_gets_them() -> None:
    async with subscribing() as slow, subscribing() as other:
        gate = asyncio.Event()
        slow.says(waiting(gate))
        triggers = trigger("slow", slow.uri, wants="{type: both}"), trigger("other", other.uri)
        async with brokering(*triggers, trigger_events=2) as broker:
            held = [asyncio.create_task(broker.sender.publish(f"{n}", type_="both")) for n in range(2)]
            await slow.got(2)
            refused = await broker.sender.publish("3", type_="both")
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert "3" not in other.ids
            assert (await broker.sender.publish("4", type_="quick")).status == 202
            gate.set()
            assert {answer.status for answer in await asyncio.gather(*held)} == {202}


async def test_who_is_too_slow_is_told_of_and_nothing_is_tried_any_longer() -> None:
    async with subscribing() as slow, subscribing() as quick:
        slow.says(answering(503))
        delivery = "{retry: 1000, backoffPolicy: linear, backoffDelay: PT0.01S, backoffMax: PT0.01S}"
        triggers = trigger("slow", slow.uri, delivery=delivery), trigger("quick", quick.uri)
        async with brokering(*triggers, accept_seconds=0.3) as broker:
            answer = await broker.sender.publish()
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert "not delivered within 0.3 s to default/slow" in answer.body
            counts = await broker.sender.triggers()
            assert counts["slow"]["on_their_way"] == 0
            assert (counts["slow"]["returned"], counts["quick"]["delivered"]) == (1, 1)
            slow.says(answering(202))
            assert (await broker.sender.publish()).status == 202
            assert quick.ids == ["1", "1"]  # at least once: its inbox makes it once


async def test_a_sender_that_has_gone_has_nobody_try_for_it() -> None:
    delivery = "{retry: 1000, backoffPolicy: linear, backoffDelay: PT0.05S, backoffMax: PT0.05S}"
    async with subscribing() as subscriber, brokering(trigger("a", subscriber.uri, delivery=delivery)) as broker:
        subscriber.says(answering(503))
        publishing = asyncio.create_task(broker.sender.publish())
        await subscriber.got(2)
        publishing.cancel()
        async with asyncio.timeout(8):  # less than the broker would wait
            while (await broker.sender.triggers())["a"]["on_their_way"]:
                pass
        assert (await broker.sender.triggers())["a"]["returned"] == 1


async def test_a_stop_lets_requests_end_and_begins_no_more() -> None:
    async with AsyncExitStack() as stack:
        gate = asyncio.Event()
        slow: Subscriber = await stack.enter_async_context(subscribing())
        failing: Subscriber = await stack.enter_async_context(subscribing())
        slow.says(waiting(gate))
        failing.says(answering(503))
        triggers = (
            trigger("slow", slow.uri, wants="{type: slow}", delivery="{timeout: PT5S}"),
            trigger("failing", failing.uri, wants="{type: failing}", delivery="{backoffDelay: PT5S}"),
        )
        broker = await stack.enter_async_context(brokering(*triggers))
        whole = asyncio.create_task(broker.sender.publish(type_="slow"))
        cut = asyncio.create_task(broker.sender.publish(type_="failing"))
        await slow.got()
        await failing.got()
        broker.stop.request()
        assert (await cut).status == 503
        assert not whole.done()
        gate.set()
        assert (await whole).status == 202
        await broker.serving
        assert len(failing.received) == 1
