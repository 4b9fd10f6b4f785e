from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from shared_models.catalog import RUN_CHANGED, EventType
from shared_models.envelope import Envelope, EventContext, new_event
from shared_models.ids import new_id
from shared_models.requests import RunChanged, Status


class RolloutChanged(BaseModel):
    revision: str


ROLLOUT = EventType(
    "example.rollout.changed.v1", RolloutChanged, frozenset({"judge"}), frozenset({"agents"}), "example", key="agent"
)


def test_event_can_be_about_something_that_is_no_request() -> None:
    context = EventContext("assistant", "assistant", "acme", cause="event-7")
    event = new_event("judge", ROLLOUT, RolloutChanged(revision="sha256:1"), context)
    read = Envelope.parse(event.attributes(), event.data)
    assert read == event
    assert (read.subject, read.partitionkey, read.causationid) == ("assistant", "assistant", "event-7")
    assert (read.turn, read.correlationid) == (None, None)
    assert "correlationid" not in event.attributes()
    with pytest.raises(ValueError, match="belongs to no request"):
        read.context.request_id  # noqa: B018 - the property raises


def test_event_that_follows_from_another_is_about_the_same_and_names_its_cause() -> None:
    request, session = new_id(), new_id()
    context = EventContext.of_request(request, session, "acme", turn=3, expires=datetime(2030, 1, 1, tzinfo=UTC))
    first = new_event("agent-service", RUN_CHANGED, RunChanged(status=Status.RUNNING, epoch=1), context)
    second = new_event("agent-service", RUN_CHANGED, RunChanged(status=Status.RUNNING, epoch=2), first.context)
    assert (first.causationid, second.causationid) == (None, first.id)
    assert (second.context.request_id, second.context.session_id) == (request, session)
    assert (second.subject, second.partitionkey, second.turn) == (first.subject, first.partitionkey, first.turn)
    assert second.request_id == request
