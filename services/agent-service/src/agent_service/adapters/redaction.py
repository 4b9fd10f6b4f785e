"""Make a provider's own message fit for the operator's log: it may quote the key and the conversation.

Decided word by word, because providers quote in many ways and none of them says where a quotation begins.
"""

import re
from typing import Final

MAX_MESSAGE: Final = 200
"""Characters of a provider's message in a log."""

_WORD = re.compile(r"[^\s\"'`(){}\[\]<>,;:=]+")
_KEY_LIKE = re.compile(
    r"[*\u2022]{2,}|^(?:sk|pk|key|tok|bearer|gsk|xai|aiza)[-_]|(?=.*\d)(?=.*[a-z])[\w+/=.-]{16,}", re.IGNORECASE
)
_RUN: Final = 4
_ERROR_WORDS: Final = frozenset(
    """
    a an the this that is are was be not no does do did can cannot could must should may has have had of for to in on at
    by with from and or if than more less most least only your you we it its model models request requests parameter
    parameters argument value values field fields body message messages token tokens limit limits maximum minimum max
    min length context window input inputs output tool tools type invalid unknown unsupported supported support
    permitted extra missing required expected got too long large small many exceeded exceeds available found exist
    exists access error server service internal temporarily overloaded unavailable try again later please use instead
    rate quota billing account organization project region deployment endpoint url path version stream streaming
    """.split()  # noqa: SIM905 - a list of a hundred quoted words is no better to read
)


def looks_like_key(word: str) -> bool:
    """Tell whether a word may be a key, or the rest of one that is half hidden."""
    return _KEY_LIKE.search(word) is not None


def short_message(message: str, sent: str) -> str:
    """Return a provider's message for the log, without keys and without what was asked or said.

    A word passes if it belongs to the talk of errors, or if it is plain ASCII that neither looks like a key nor occurs
    in `sent`, the text of the request; each other word becomes an ellipsis. A message that repeats four words of the
    request in a row, or that is mostly ellipses, is left out.
    """
    known = sent.casefold()

    def masked(match: re.Match[str]) -> str:
        word = match[0].casefold().strip(".!?")
        if word in _ERROR_WORDS:
            return match[0]
        return "…" if not word.isascii() or looks_like_key(match[0]) or word in known else match[0]

    short = _WORD.sub(masked, " ".join(message[:MAX_MESSAGE].split()))
    words = _WORD.findall(short)
    repeats = any(" ".join(words[at : at + _RUN]).casefold() in known for at in range(len(words) - _RUN + 1))
    return short if words and not repeats and sum("…" in word for word in words) * 2 < len(words) else ""
