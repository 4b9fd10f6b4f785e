import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_models.principals import Caller, Person
from shared_models.requests import Principal, RequestCreated

TEXT = st.text(alphabet="ab|%7C25", max_size=6) | st.text(max_size=20)
PERSONS = st.builds(Person, TEXT, TEXT)


@given(one=PERSONS, other=PERSONS)
def test_two_persons_never_have_the_same_key_and_a_key_is_read_again(one: Person, other: Person) -> None:
    assert (one.key == other.key) == (one == other)
    assert Person.parse(one.key) == one


@given(one=st.builds(Caller, TEXT, PERSONS), other=st.builds(Caller, TEXT, PERSONS))
def test_two_callers_never_have_the_same_key(one: Caller, other: Caller) -> None:
    assert (one.key == other.key) == (one == other)


def test_issuer_and_subject_do_not_run_into_each_other() -> None:
    assert Person("a|b", "c").key != Person("a", "b|c").key


def test_keys_that_earlier_releases_stored_still_mean_the_same_person() -> None:
    assert Person("https://id.example.org", "auth0|ada").key == "https://id.example.org|auth0|ada"


def test_text_that_is_no_key_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the key of a person"):
        Person.parse("unknown")


def test_event_of_an_earlier_release_has_a_principal_that_may_nothing_more() -> None:
    old = (
        b'{"content": "hi", "principal": {"issuer": "idp", "subject": "ada", "tenant": "acme", '
        b'"credential": "key-1", "channel": "api", "scopes": ["requests"]}}'
    )
    principal = RequestCreated.model_validate_json(old).principal
    assert (principal.roles, principal.groups, principal.assurance) == (frozenset(), frozenset(), "")


def test_principal_keeps_roles_groups_and_assurance_in_an_event() -> None:
    ada = Principal(
        issuer="idp", subject="ada", tenant="acme", credential="k", channel="web",
        roles=frozenset({"approver"}), groups=frozenset({"hr"}), assurance="urn:mfa",
    )  # fmt: skip
    read = RequestCreated.model_validate_json(RequestCreated(content="hi", principal=ada).model_dump_json())
    assert read.principal == ada
