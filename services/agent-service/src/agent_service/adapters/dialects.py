"""Changes requests for servers that implement only a part of a provider's protocol.

An agent's `dialect` says what such a server takes. Without a dialect, the server's refusal is used: if it names a
member of the body, the request is sent again with that member renamed or left out, and so are later requests.
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


def apply_dialect(dialect: Dialect, body: Mapping[str, object]) -> Body:
    """Return a body changed by a dialect: its renames first, then its omissions."""
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
    """Yield the members that an error names in `param` or in FastAPI's `loc`."""
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
class ChangedRequest:
    """One request as its server gets it: changed by its agent's dialect, then by the members that its server refused.

    Attributes:
        request: the request as it is sent.
        body: the body after the agent's dialect.
        refused: the members that were changed after that, in their order.
    """

    request: httpx2.Request
    body: Body
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelServer:
    """A model at one address."""

    host: str
    model: str


@dataclass(slots=True)
class LearnedDialects:
    """The members that each server has refused, by host and model.

    Attributes:
        learnable: how a refused member is changed.
    """

    learnable: Mapping[str, Dialect]
    _refused: dict[ModelServer, tuple[str, ...]] = field(default_factory=dict)

    def translate(self, request: httpx2.Request, dialect: Dialect) -> ChangedRequest:
        """Return the request changed for its server, with the record of the changes."""
        body = _body(request)
        if body is None:
            return ChangedRequest(request, {})
        refused = self._refused.get(_server(request, body), ())
        return self._change(request, apply_dialect(dialect, body), refused)

    def without_refused_member(self, changed: ChangedRequest, status: int, error: bytes) -> ChangedRequest | None:
        """Return the request without the refused member; None if the error has another cause."""
        if status not in _BAD_REQUEST or len(changed.refused) >= len(self.learnable):
            return None
        sent = self._changed_body(changed.body, changed.refused)
        name = refused_member(sent, error.decode(errors="replace"), self.learnable)
        if name is None or name in changed.refused:
            return None
        return self._change(changed.request, changed.body, (*changed.refused, name))

    def remember(self, changed: ChangedRequest) -> None:
        """Remember the changes that a server accepted; the next call begins with them."""
        server = _server(changed.request, changed.body)
        if changed.refused != self._refused.get(server, ()):
            self._refused[server] = changed.refused
            log.info(
                "model_server_refused_members", host=server.host, model=server.model, refused=list(changed.refused)
            )

    def _changed_body(self, body: Body, refused: Sequence[str]) -> Body:
        for name in refused:
            body = apply_dialect(self.learnable[name], body)
        return body

    def _change(self, request: httpx2.Request, body: Body, refused: tuple[str, ...]) -> ChangedRequest:
        headers = [pair for pair in request.headers.multi_items() if pair[0].lower() != "content-length"]
        content = json.dumps(self._changed_body(body, refused), ensure_ascii=False).encode()
        sent = httpx2.Request(
            request.method, request.url, headers=headers, content=content, extensions=request.extensions
        )
        return ChangedRequest(sent, body, refused)


def _body(request: httpx2.Request) -> Body | None:
    if "json" not in request.headers.get("content-type", ""):
        return None
    body = json.loads(request.content)
    return body if isinstance(body, dict) else None


def _server(request: httpx2.Request, body: Mapping[str, object]) -> ModelServer:
    return ModelServer(request.url.netloc.decode("ascii", "replace"), str(body.get("model", "")))
