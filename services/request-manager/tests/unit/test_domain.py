"""Pure decisions about a request: its draft, its owner, its links, its ETag and the order of its states."""

from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from request_manager.domain import RequestDraft, etag_of, links_of, normalise
from shared_models.ids import new_id
from shared_models.requests import STATES, TERMINAL, NewRequest, Principal, RequestView, Status, TextPart, settles

LIFETIME = timedelta(minutes=15)
PRINCIPAL = Principal(issuer="idp", subject="ada", tenant="acme", credential="key-1", channel="api")

LIVING = st.tuples(st.sampled_from([Status.RUNNING, Status.WAITING]), st.integers(1, 4))


def draft_of(body: NewRequest, *vouched: UUID, key: str | None = None) -> RequestDraft:
    return normalise(body, PRINCIPAL, frozenset(vouched), idempotency_key=key, lifetime=LIFETIME)


def final(changes: list[tuple[Status, int]]) -> tuple[Status, int]:
    """Return the status and epoch of a row after these events, in this order."""
    shown, epoch = Status.ACCEPTED, 0
    for status, of in changes:
        if settles(shown, epoch, status, of):
            shown, epoch = status, of
    return shown, epoch


def test_text_parts_become_one_text() -> None:
    body = NewRequest(content=(TextPart(text="One."), TextPart(text="Two.")))
    assert normalise(body, PRINCIPAL, frozenset(), idempotency_key=None, lifetime=LIFETIME).content == "One.\n\nTwo."


def test_request_without_a_session_opens_a_new_one() -> None:
    body = NewRequest(content="hi")
    one, two = (normalise(body, PRINCIPAL, frozenset(), idempotency_key=None, lifetime=LIFETIME) for _ in range(2))
    assert one.opens_session
    assert len({one.session_id, two.session_id, one.request_id, two.request_id}) == 4


@pytest.mark.parametrize("vouched", [True, False])
def test_named_session_is_opened_only_when_a_trusted_caller_vouches_for_it(vouched: bool) -> None:
    session = new_id()
    body = NewRequest(content="hi", session_id=session)
    draft = normalise(
        body, PRINCIPAL, frozenset({session} if vouched else {new_id()}), idempotency_key=None, lifetime=LIFETIME
    )
    assert draft.session_id == session
    assert draft.opens_session is vouched


def test_person_owns_a_session_through_any_credential_and_keys_belong_to_one_credential() -> None:
    other = PRINCIPAL.model_copy(update={"credential": "browser-1", "channel": "web"})
    assert PRINCIPAL.person == other.person
    assert PRINCIPAL.caller.key != other.caller.key


def test_same_subject_of_another_issuer_is_another_owner() -> None:
    assert PRINCIPAL.person != PRINCIPAL.model_copy(update={"issuer": "other"}).person


def test_body_hash_differs_between_bodies_and_ignores_their_layout() -> None:
    def hashed(text: str) -> bytes:
        body = NewRequest.model_validate_json(text)
        return draft_of(body, key="key").body_hash

    assert hashed('{"content":"hi"}') == hashed('{ "content" : "hi", "agent": null }')
    assert len({hashed('{"content":"hi"}'), hashed('{"content":"ho"}'), hashed('{"content":"hi","agent":"a"}')}) == 3


def test_deadline_is_a_lifetime_from_now() -> None:
    before = datetime.now(UTC)
    draft = normalise(NewRequest(content="hi"), PRINCIPAL, frozenset(), idempotency_key=None, lifetime=LIFETIME)
    assert before + LIFETIME <= draft.expires_at <= datetime.now(UTC) + LIFETIME


def test_links_lead_to_the_request() -> None:
    request_id = new_id()
    links = links_of(request_id)
    assert links.self == f"/api/v1/requests/{request_id}"
    assert (links.status, links.result) == (f"{links.self}/status", f"{links.self}/result")
    assert links.stream == f"/chat/{request_id}"


def test_etag_is_strong_and_changes_with_every_member_of_the_view() -> None:
    view = RequestView(
        request_id=new_id(), session_id=new_id(), turn=1, status=Status.RUNNING, created_at=datetime.now(UTC)
    )
    assert etag_of(view) == etag_of(view.model_copy())
    assert etag_of(view).startswith('"')
    changes = {"status": Status.COMPLETED, "turn": 2, "agent": "a", "completed_at": datetime.now(UTC)}
    tags = {etag_of(view.model_copy(update={name: value})) for name, value in changes.items()}
    assert len(tags | {etag_of(view)}) == 5


@given(st.lists(LIVING, max_size=5), st.none() | st.tuples(st.sampled_from(sorted(TERMINAL)), st.integers(0, 4)))
def test_events_in_any_order_give_the_same_final_status(
    living: list[tuple[Status, int]], end: tuple[Status, int] | None
) -> None:
    changes = [*living, *([end] if end else [])]
    finals = {final(list(order)) for order in permutations(changes)}
    assert len(finals) == 1
    if end:
        assert finals == {end}


@given(st.lists(LIVING, max_size=6))
def test_repeated_event_changes_nothing(living: list[tuple[Status, int]]) -> None:
    assert final(living) == final([change for change in living for _ in range(3)]) == final([*living, *living])


@pytest.mark.parametrize("old", sorted(TERMINAL))
@pytest.mark.parametrize("new", list(Status))
def test_nothing_comes_after_the_end(old: Status, new: Status) -> None:
    assert not settles(old, 1, new, 99)


def test_every_status_has_a_state_and_only_the_living_ones_have_a_rank_below_the_end() -> None:
    assert set(STATES) == set(Status)
    assert all(STATES[status].terminal == (STATES[status].rank == 3) for status in Status)
