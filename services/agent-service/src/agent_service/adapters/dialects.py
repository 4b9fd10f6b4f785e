"""Speak to servers that know less of a protocol than the provider whose protocol it is.

An agent's `dialect` says what such a server takes. Without it the server's own refusal is enough: one that names a
member of the request's body is asked again without that member, and asked like that from then on.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import httpx2
import structlog

from shared_models.agents import Dialect

_BAD_REQUEST = frozenset({400, 422})

log = structlog.get_logger()

type Body = dict[str, object]


def spoken_in(dialect: Dialect, body: Mapping[str, object]) -> Body:
    """Return a body as a dialect has it: members renamed first, then left out."""
    renamed = {dialect.rename.get(name, name): value for name, value in body.items()}
    return {name: value for name, value in renamed.items() if name not in dialect.omit}


def refused_member(sent: Mapping[str, object], text: str, learnable: Mapping[str, Dialect]) -> str | None:
    """Return the member that an error's text is about, if it was sent and the call can do without it."""
    candidates = [name for name in learnable if name in sent]
    exact = set(_pointed_at(text))
    return next(
        (name for name in candidates if name in exact),
        next((name for name in candidates if re.search(rf"\b{name}\b", text)), None),
    )


def _pointed_at(text: str) -> Iterator[str]:
    """Yield the members that an error names in the places for it: `param`, and FastAPI's `loc`."""
    try:
        error = json.loads(text)
    except (ValueError, RecursionError):
        return
    outer = error if isinstance(error, dict) else {}
    inner = outer.get("error")
    for found in (outer, inner if isinstance(inner, dict) else {}):
        if isinstance(param := found.get("param"), str):
            yield param
    details = outer.get("detail")
    for detail in details if isinstance(details, list) else ():
        location = detail.get("loc") if isinstance(detail, dict) else None
        yield from (step for step in location if isinstance(step, str)) if isinstance(location, list) else ()


@dataclass(frozen=True, slots=True)
class Spoken:
    """How one request was changed: by its agent's dialect, then by members that its server refused, in that order."""

    original: Body
    learned: tuple[str, ...] = ()


@dataclass(slots=True)
class Speech:
    """What the servers of one client have been found not to know, by host and model.

    Attributes:
        learnable: how a refused member is changed.
    """

    learnable: Mapping[str, Dialect]
    _learned: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def translate(self, request: httpx2.Request, dialect: Dialect) -> tuple[httpx2.Request, Spoken]:
        """Return a request as its server knows it, and how it came about."""
        body = _body(request)
        if body is None:
            return request, Spoken({})
        spoken = Spoken(spoken_in(dialect, body), self._learned.get(_server(request, body), ()))
        return self._rewritten(request, spoken), spoken

    def simpler(
        self, request: httpx2.Request, spoken: Spoken, status: int, error: bytes
    ) -> tuple[httpx2.Request, Spoken] | None:
        """Return the request without the member that was refused, or None where that is not what went wrong."""
        if status not in _BAD_REQUEST or len(spoken.learned) >= len(self.learnable):
            return None
        sent = self._changed(spoken.original, spoken.learned)
        name = refused_member(sent, error.decode(errors="replace"), self.learnable)
        if name is None or name in spoken.learned:
            return None
        again = Spoken(spoken.original, (*spoken.learned, name))
        return self._rewritten(request, again), again

    def keep(self, request: httpx2.Request, spoken: Spoken) -> None:
        """Remember what a server took, so that the next call begins with it."""
        server = _server(request, spoken.original)
        if spoken.learned != self._learned.get(server, ()):
            self._learned[server] = spoken.learned
            log.info("model_server_knows_less", host=server[0], model=server[1], refused=list(spoken.learned))

    def _changed(self, body: Body, learned: Sequence[str]) -> Body:
        for name in learned:
            body = spoken_in(self.learnable[name], body)
        return body

    def _rewritten(self, request: httpx2.Request, spoken: Spoken) -> httpx2.Request:
        headers = [pair for pair in request.headers.multi_items() if pair[0].lower() != "content-length"]
        content = json.dumps(self._changed(spoken.original, spoken.learned), ensure_ascii=False).encode()
        return httpx2.Request(
            request.method, request.url, headers=headers, content=content, extensions=request.extensions
        )


def _body(request: httpx2.Request) -> Body | None:
    if "json" not in request.headers.get("content-type", ""):
        return None
    body = json.loads(request.content)
    return body if isinstance(body, dict) else None


def _server(request: httpx2.Request, body: Mapping[str, object]) -> tuple[str, str]:
    return request.url.netloc.decode("ascii", "replace"), str(body.get("model", ""))
