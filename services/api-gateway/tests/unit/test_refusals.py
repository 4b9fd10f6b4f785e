"""Refusals kept for the audit log: a few of each kind, and a count of the rest."""

from api_gateway.refusals import MAX_WRITTEN, RefusalLog
from shared_models.audit import Action
from shared_models.requests import Principal

SOMEBODY = Principal(issuer="us", subject="somebody", tenant="acme", credential="key-1", channel="api")


def test_only_the_first_few_refusals_of_a_kind_in_a_minute_are_kept() -> None:
    refusals = RefusalLog(lambda: 0.0)
    for _ in range(1000):
        refusals.add(401, "GET /auth/me", None)
    refusals.add(403, "POST /chat", SOMEBODY)
    assert len(refusals._unwritten) == MAX_WRITTEN + 1
    assert refusals._counted == {Action.IDENTITY_REFUSED: 1000 - MAX_WRITTEN}
    last = refusals._unwritten[-1]
    assert (last.tenant, last.actor.credential, last.actor.person) == ("acme", "key-1", SOMEBODY.person)
    assert {entry.actor.person for entry in refusals._unwritten[:-1]} == {None}
