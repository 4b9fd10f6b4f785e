"""The hash behind an Idempotency-Key is equal for equal bodies and for no others."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from request_manager.domain import normalise
from shared_models.requests import NewRequest, Principal, TextPart

PRINCIPAL = Principal(issuer="idp", subject="ada", tenant="acme", credential="key-1", channel="api")
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20)
BODIES = st.builds(
    NewRequest,
    content=TEXTS | st.lists(st.builds(TextPart, text=TEXTS), min_size=1, max_size=3).map(tuple),
    session_id=st.none() | st.uuids(),
    agent=st.none() | st.sampled_from(["assistant", "other"]),
    metadata=st.dictionaries(TEXTS, TEXTS, max_size=4),
)


def hashed(body: NewRequest, key: str | None = "key") -> bytes:
    return normalise(body, PRINCIPAL, frozenset(), idempotency_key=key, lifetime=timedelta(minutes=1)).body_hash


@given(one=BODIES, other=BODIES)
def test_bodies_have_one_hash_exactly_when_they_are_equal(one: NewRequest, other: NewRequest) -> None:
    assert (hashed(one) == hashed(other)) == (one == other)


@given(body=BODIES, data=st.data())
def test_hash_does_not_depend_on_the_order_in_which_members_were_written(body: NewRequest, data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(body.metadata.items()))))
    again = NewRequest.model_validate_json(body.model_copy(update={"metadata": shuffled}).model_dump_json())
    assert hashed(again) == hashed(body)


@given(body=BODIES)
def test_request_without_a_key_has_no_hash(body: NewRequest) -> None:
    assert hashed(body, None) == b""
