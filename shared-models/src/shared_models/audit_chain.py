"""The hash chain over a service's audit entries, and its checker.

Entry number n has the hash SHA-256(hash of n-1, then the canonical bytes of n). Canonical bytes are JSON in the form of
RFC 8785 (JCS), and every value is a string, so any JCS library can check the chain. The chain begins with a hash of its
schema's name. The checker computes each hash from the stored hash before it, so a fault shows at its own number only.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict

VERSION: Final = "flotilla-audit-1"
MAX_COMMIT_DELAY: Final = timedelta(minutes=1)
"""The longest time between an entry's timestamp and its commit; every transaction is shorter."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stored audit entry; `at` is UTC with microseconds, as `moment` writes it."""

    id: UUID
    tenant: str
    at: str
    credential: str
    person: str
    action: str
    subject: str
    outcome: str
    details: Mapping[str, str]
    trace_id: str


class Anchor(BaseModel):
    """The newest seal of a chain, signed outside of Postgres: a line of an anchor file.

    Attributes:
        chain: the schema.
        number: the seal's number.
        hash: the seal's hash, in hexadecimal.
        at: the time of signing, by the database's clock.
        whole_until: every entry with an older timestamp had a seal when the anchor was signed, unless its transaction
            was still open.
        kid: the signing key's thumbprint (RFC 7638).
        signature: Ed25519 over the canonical bytes of all other fields, in hexadecimal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    chain: str
    number: int
    hash: str
    at: str
    whole_until: str
    kid: str = ""
    signature: str = ""

    def signed(self) -> bytes:
        """Return the bytes that are signed."""
        return canonical(self.model_dump(exclude={"number", "signature"}) | {"number": str(self.number), "v": VERSION})


class Fault(BaseModel):
    """A change of a chain after its writing; `number` is that of the changed or missing seal, if there is one."""

    number: int | None
    what: str


class Checker:
    """Checks a chain, number by number, and yields its faults.

    Args:
        chain: the schema.
        anchors: the chain's anchors, by number.
        after: the number before the first to be checked; only 0 proves the whole chain.
    """

    def __init__(self, chain: str, anchors: Mapping[int, Anchor], after: int = 0) -> None:
        self._anchors = anchors
        self.hash: bytes | None = None if after else first_hash(chain)
        self._visible_until = ""
        self.number = after

    def take(self, number: int, stored: bytes, row: Row | None) -> Iterator[Fault]:
        """Check the next stored seal and its entry; None means that the entry is gone."""
        if number != self.number + 1:
            yield Fault(number=self.number + 1, what=f"missing, up to {number - 1}: seals were deleted")
            self.hash = None
        if row is None:
            yield Fault(number=number, what="its entry is gone")
        elif self.hash is not None and next_hash(self.hash, number, row) != stored:
            yield Fault(number=number, what=f"the entry {row.id}, its seal or the seal before was changed")
        elif row.at < self._visible_until:
            yield Fault(number=number, what=f"the entry {row.id} was inserted later than its timestamp {row.at}")
        anchor = self._anchors.get(number)
        if anchor is not None:
            if anchor.hash != stored.hex():
                yield Fault(
                    number=number, what=f"not the hash that was anchored at {anchor.at}: the chain is rewritten"
                )
            self._visible_until = max(
                self._visible_until, moment(datetime.fromisoformat(anchor.whole_until) - MAX_COMMIT_DELAY)
            )
        self.number, self.hash = number, stored

    def end(self) -> Iterator[Fault]:
        """Check that no anchor has a higher number than the last seal."""
        beyond = [anchor for number, anchor in self._anchors.items() if number > self.number]
        if beyond:
            last = max(beyond, key=lambda anchor: anchor.number)
            what = f"missing, up to {last.number}, which was anchored at {last.at}: the end was cut off"
            yield Fault(number=self.number + 1, what=what)


def first_hash(chain: str) -> bytes:
    """Return the hash that stands before number 1."""
    return hashlib.sha256(f"{VERSION}:{chain}".encode()).digest()


def next_hash(previous: bytes, number: int, row: Row) -> bytes:
    """Return the hash of a number, made from the hash before it and its entry."""
    members = {**asdict(row), "id": str(row.id), "number": str(number)}
    return hashlib.sha256(previous + canonical(members)).digest()


def canonical(members: Mapping[str, object]) -> bytes:
    """Return the RFC 8785 JSON of an object whose values are strings or objects of strings."""
    return json.dumps(_ordered(members), ensure_ascii=False, separators=(",", ":")).encode()


def moment(time: datetime) -> str:
    """Return a time as a text; texts sort as their times do."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _ordered(value: object) -> object:
    """Sort members by their names' UTF-16 code units, as RFC 8785 demands."""
    if isinstance(value, Mapping):
        return {name: _ordered(value[name]) for name in sorted(value, key=lambda name: name.encode("utf-16-be"))}
    return value
