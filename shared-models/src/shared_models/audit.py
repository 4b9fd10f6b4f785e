"""The catalogue of audited actions: decisions about identity, about permissions and about other people's work.

A service writes an audit entry in the transaction of the action's effect (`durable_work.audit.record`). Accepting a
request is no entry, because its row in request-manager is the record. Names are stable: logs keep them for years.
"""

from enum import StrEnum


class Action(StrEnum):
    """An action that was done or refused."""

    REQUEST_CANCEL_ASKED = "request.cancel_asked"
    """The owner asked for a running request to be stopped. Subject: the request."""
    SESSION_CREATED = "session.created"
    """A conversation was opened before its first request. Subject: the session."""
    SESSION_DELETED = "session.deleted"
    """The owner deleted a conversation. Subject: the session."""
    LINK_MADE = "sign_in.link_made"
    """A single-use link was made; it signs one browser in as the person who made the link. Subject: the link's
    pseudonym."""
    SIGNED_IN = "sign_in.done"
    """A browser was signed in with a link. Actor: the new credential; subject: the link's pseudonym."""
    SIGNED_OUT = "sign_in.ended"
    """A browser's credential was revoked by its owner. Subject: the credential."""
    IDENTITY_REFUSED = "identity.refused"
    """A call had no valid identity (401). Subject: method and route."""
    PERMISSION_REFUSED = "permission.refused"
    """A known caller lacked a permission, or a foreign page used its cookie (403). Subject: method and route."""
    REFUSALS_COUNTED = "refusals.counted"
    """The number of further refusals in a minute, beyond the first ones, which have an entry each. Subject: their
    action; details: their number."""
    DEAD_LETTER_READ = "dead_letter.read"
    """The bytes of a dead letter's event were shown. Subject: the dead letter."""
    DEAD_LETTER_REPLAYED = "dead_letter.replayed"
    """A dead letter was replayed. Subject: the dead letter."""
    DEAD_LETTER_DISCARDED = "dead_letter.discarded"
    """A dead letter was discarded, with a reason. Subject: the dead letter."""


class Outcome(StrEnum):
    """Whether the action was done or refused."""

    DONE = "done"
    REFUSED = "refused"
