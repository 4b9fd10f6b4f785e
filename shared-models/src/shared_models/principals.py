"""Who acts: a person by issuer and subject, and the caller through whom the person acts.

A subject is unique only within its issuer, so the two are one type and are never compared apart. Rows hold the `key` of
the type, and only this module makes it: two joined texts could mean two different persons.
"""

from dataclasses import dataclass
from typing import Final, Self

_SEPARATOR: Final = "|"
_ESCAPE: Final = "%7C"


@dataclass(frozen=True, slots=True)
class Person:
    """A person, or a machine that acts for itself.

    Attributes:
        issuer: the authority that vouches for the subject, such as the URL of an OpenID provider.
        subject: the person, stable within the issuer; never an e-mail address.
    """

    issuer: str
    subject: str

    @property
    def key(self) -> str:
        """The text that stands for this person in a row; no other person has the same.

        A separator in an issuer is escaped. Issuers without `|` and `%` have the key that earlier releases stored.
        """
        return f"{_escaped(self.issuer)}{_SEPARATOR}{self.subject}"

    @classmethod
    def parse(cls, key: str) -> Self:
        """Return the person whose `key` this is.

        Raises:
            ValueError: no person has this key.
        """
        issuer, separator, subject = key.partition(_SEPARATOR)
        if not separator:
            msg = f"expected the key of a person, and got {key[:100]!r}"
            raise ValueError(msg)
        return cls(_unescaped(issuer), subject)


@dataclass(frozen=True, slots=True)
class Caller:
    """A person, and the credential that the person uses: limits and Idempotency-Keys are counted by both.

    Attributes:
        credential: a stable pseudonym of the key or session.
    """

    credential: str
    person: Person

    @property
    def key(self) -> str:
        """The text that stands for this caller in a row; no other caller has the same."""
        return f"{_escaped(self.credential)}{_SEPARATOR}{self.person.key}"


def _escaped(text: str) -> str:
    """Return a text without the separator; the escape character is escaped too, so that no two texts become one."""
    return text.replace("%", "%25").replace(_SEPARATOR, _ESCAPE)


def _unescaped(text: str) -> str:
    return text.replace(_ESCAPE, _SEPARATOR).replace("%25", "%")
