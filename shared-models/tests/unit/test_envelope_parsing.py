"""Arbitrary bytes are an envelope or one ValidationError, and an envelope survives writing and reading."""

from contextlib import suppress
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared_models.catalog import RUN_CHANGED
from shared_models.envelope import Envelope, EventContext, new_event
from shared_models.ids import new_id
from shared_models.requests import RunChanged, Status

NAMES = st.sampled_from(sorted(Envelope.model_fields)) | st.text(max_size=10)
VALUES = st.text(max_size=60) | st.sampled_from(
    ["1.0", "0", "-1", "NaN", "1e400", "9" * 5000, "2026-02-30T00:00:00Z", "\x00", "0001-01-01T00:00:00+23:59", "{}"]
)


def written() -> dict[str, str]:
    context = EventContext.of_request(new_id(), new_id(), "acme", turn=3, expires=datetime(2030, 1, 1, tzinfo=UTC))
    return new_event("agent-service", RUN_CHANGED, RunChanged(status=Status.RUNNING, epoch=1), context).attributes()


@given(attributes=st.dictionaries(NAMES, VALUES, max_size=20), data=st.binary(max_size=200))
def test_arbitrary_attributes_are_an_envelope_or_one_error(attributes: dict[str, str], data: bytes) -> None:
    with suppress(ValidationError):
        Envelope.parse(attributes, data)


@given(changes=st.dictionaries(NAMES, VALUES, max_size=3), data=st.binary(max_size=50))
def test_envelope_is_read_again_as_it_was_written(changes: dict[str, str], data: bytes) -> None:
    with suppress(ValidationError):
        event = Envelope.parse({**written(), **changes}, data)
        assert Envelope.parse(event.attributes(), event.data) == event
