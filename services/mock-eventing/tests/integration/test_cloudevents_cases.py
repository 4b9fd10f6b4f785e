"""The table of CloudEvents cases at the ingress: what is one is passed on as it is, and what is none is refused."""

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from shared_clients.bus.http_codec import decode_post
from tests.cloudevents_cases import HTTP_CASES, Case
from tests.simulators.eventing import Brokering, brokering, trigger
from tests.simulators.subscribers import Subscriber, subscribing


@pytest.fixture
async def subscriber() -> AsyncIterator[Subscriber]:
    async with subscribing() as subscriber:
        yield subscriber


@pytest.fixture
async def broker(subscriber: Subscriber) -> AsyncIterator[Brokering]:
    async with brokering(trigger("a", subscriber.uri)) as broker:
        yield broker


async def post(broker: Brokering, case: Case) -> int:
    assert case.http is not None
    headers, body = case.http
    given = [(name, value.decode("utf-8", "surrogateescape")) for name, value in headers]
    async with broker.sender.session.post(broker.sender.url, data=body, headers=given) as response:
        return response.status


async def test_every_case_is_passed_on_as_it_is_or_refused(broker: Brokering, subscriber: Subscriber) -> None:
    for case in HTTP_CASES:
        subscriber.received.clear()
        try:
            status = await post(broker, case)
        except aiohttp.ClientError as error:
            pytest.fail(f"{case.name}: {error}")
        if case.events is None:
            assert status in ({202, 400} if case.lenient else {400, 415}), case.name
            assert case.lenient or subscriber.received == [], case.name
            continue
        assert status == 202, case.name
        arrived = [
            decode_post(
                [(name.lower().encode(), value.encode("latin-1")) for name, value in one.headers.items()], one.body
            )
            for one in subscriber.received
        ]
        found = {message.attributes["id"]: message for [message] in arrived}
        assert len(found) == len(case.events), case.name
        for expected, sent in case.events:
            message = found[expected["id"]]
            assert expected.items() <= message.attributes.items(), case.name
            assert message.data == sent or json.loads(message.data) == json.loads(sent), case.name
