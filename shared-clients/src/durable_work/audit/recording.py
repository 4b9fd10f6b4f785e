"""Recording: an audit entry is written in the transaction of its effect, so that neither is ever stored alone.

Every entry gets a row in `audit_waiting`, which the sealer deletes when it numbers the entry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from pydantic_core import to_json
from sqlalchemy import RowMapping

from shared_clients.postgres import Tx, sql
from shared_clients.tracing import trace_id
from shared_models.audit import Action, Outcome
from shared_models.audit_chain import Row
from shared_models.ids import new_id
from shared_models.principals import Person
from shared_models.requests import Principal

MOST_DETAILS: Final = 8
UNKNOWN_PERSON: Final = "unknown"
"""The person of an entry whose caller is not known."""
MOST_CHARACTERS: Final = 500
"""Characters of a subject, of a detail's name and of its value; longer texts are cut."""

INSERT_ENTRY = sql("""
    WITH written AS (
        INSERT INTO audit_entries (id, tenant, credential, person, action, subject, outcome, details, trace_id)
        VALUES (:id, :tenant, :credential, :person, :action, :subject, :outcome, CAST(:details AS jsonb), :trace_id)
        RETURNING id
    )
    INSERT INTO audit_waiting (id) SELECT id FROM written
""")

ENTRY_COLUMNS: Final = """
    e.id, e.tenant, to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
    e.credential, e.person, e.action, e.subject, e.outcome, e.details, e.trace_id
"""
"""The columns that a seal's hash covers, for `row_of`; `e` is the table of entries."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The actor of an entry, under pseudonyms; never a name or an e-mail address.

    Attributes:
        credential: the key or browser session that the person used, as in `Principal.credential`.
        person: the effective person; None where the caller is not known.
    """

    credential: str
    person: Person | None

    @property
    def person_key(self) -> str:
        """The person as the rows of the audit log name it."""
        return UNKNOWN_PERSON if self.person is None else self.person.key

    @classmethod
    def of(cls, principal: Principal) -> Self:
        return cls(principal.credential, principal.person)


@dataclass(frozen=True, slots=True)
class Entry:
    """One action that was carried out or refused.

    Attributes:
        tenant: the organisation that the action belongs to.
        actor: the person and the credential.
        action: the action, from the catalogue.
        subject: the object of the action, as an id or a pseudonym.
        details: a few more short facts; never content or secrets.
        outcome: whether the action was carried out or refused.
    """

    tenant: str
    actor: Actor
    action: Action
    subject: str
    details: Mapping[str, str] = field(default_factory=dict)
    outcome: Outcome = Outcome.DONE


async def record(tx: Tx, entry: Entry) -> None:
    """Write an entry in the caller's transaction.

    Raises:
        ValueError: the entry has more than `MOST_DETAILS` details.
    """
    if len(entry.details) > MOST_DETAILS:
        msg = f"an audit entry has at most {MOST_DETAILS} details, and {entry.action} came with {len(entry.details)}"
        raise ValueError(msg)
    await tx.run(
        INSERT_ENTRY,
        id=new_id(),
        tenant=entry.tenant,
        credential=_short(entry.actor.credential),
        person=_short(entry.actor.person_key),
        action=entry.action,
        subject=_short(entry.subject),
        outcome=entry.outcome,
        details=to_json({_short(name): _short(value) for name, value in entry.details.items()}).decode(),
        trace_id=trace_id(),
    )


def row_of(row: RowMapping) -> Row:
    """Return an entry that was read with `ENTRY_COLUMNS`."""
    return Row(**{name: row[name] for name in Row.__slots__})


def _short(text: str) -> str:
    """Return the text, cut to its greatest length and without the character that Postgres cannot store."""
    return text[:MOST_CHARACTERS].replace("\x00", "")
