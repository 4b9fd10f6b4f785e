from collections.abc import Callable, Iterator

import pytest

from tests.architecture import rules
from tests.architecture.sources import Source, planted, workspace_sources

Rule = Callable[[Source], Iterator[str]]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule: Rule) -> None:
    complaints = [complaint for source in workspace_sources() for complaint in rule(source)]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    ("rule", "text", "module", "complaint"),
    [
        (rules.banned_names, "", "agent_service.run_helpers", "'helpers'"),
        (rules.banned_names, "class RunManager: ...", "agent_service.domain", "'Manager'"),
        (rules.banned_names, "class HTTPHandlers: ...", "agent_service.domain", "'Handlers'"),
        (rules.missing_docstrings, "x = 1", "agent_service.domain", "no docstring"),
        (rules.bare_suppressions, "x = 1  # noqa\n", "agent_service.domain", "noqa"),
        (rules.bare_suppressions, "x = 1  # noqa: E501\n", "agent_service.domain", "noqa: E501"),
        (rules.bare_suppressions, "x = 1  # type: ignore\n", "agent_service.domain", "type: ignore"),
        (rules.bare_suppressions, "x = 1  # type: ignore[misc]\n", "agent_service.domain", "type: ignore[misc]"),
        (rules.bare_suppressions, "# ruff: noqa\n", "agent_service.domain", "ruff: noqa"),
        (rules.unbounded_queues, "q = asyncio.Queue()", "agent_service.workers", "maxsize"),
        (rules.unbounded_queues, "q = asyncio.Queue[int](maxsize=0)", "agent_service.workers", "maxsize"),
        (rules.unbounded_pools, "c = aiohttp.TCPConnector()", "api_gateway.hop", "limit"),
        (rules.unbounded_pools, "c = TCPConnector(limit=None)", "api_gateway.hop", "limit"),
        (rules.unbounded_pools, "e = create_async_engine(url, pool_size=8)", "shared_clients.postgres", "max_overflow"),
        (rules.unbounded_pools, "p = aioredis.ConnectionPool.from_url(url)", "shared_clients.redis", "max_connections"),
        (rules.stray_sockets, "s = aiohttp.ClientSession()", "agent_service.adapters.x", "ClientSession"),
        (rules.stray_sockets, "await asyncio.open_connection(h, 1)", "agent_service.usecases.x", "open_connection"),
        (rules.stray_sockets, "await loop.sock_connect(s, a)", "shared_clients.bus.http", "sock_connect"),
        (rules.stray_sockets, "k = jwt.PyJWKClient(url)", "shared_clients.identity.jwks", "PyJWKClient"),
        (rules.stray_sockets, "p = AIOKafkaProducer()", "agent_service.workers", "AIOKafkaProducer"),
        (rules.stray_sockets, "c = httpx2.AsyncClient(timeout=1)", "agent_service.adapters.x", "without transport"),
        (rules.stray_sockets, "c = AsyncOpenAI(api_key=k)", "agent_service.adapters.x", "without http_client"),
        (rules.environment_readers, "x = os.environ['A']", "agent_service.app", "reads the environment"),
        (rules.environment_readers, "from os import getenv", "agent_service.app", "reads the environment"),
        (rules.stray_sql, "x = ' SELECT 1'", "agent_service.usecases.x", "SQL outside"),
        (rules.stray_sql, "x = 'WITH a AS (SELECT 1)'", "agent_service.api", "SQL outside"),
        (rules.stray_event_types, "x = 'flotilla.request.created.v1'", "agent_service.api", "catalog"),
        (rules.joined_persons, "x = f'{caller.issuer}|{caller.subject}'", "agent_service.domain", "Person"),
        (rules.joined_persons, "x = ' '.join((p.issuer, p.subject))", "agent_service.domain", "Person"),
        (rules.strays_from_home, "from pydantic_ai.models import Model", "agent_service.usecases.x", "pydantic_ai"),
        (rules.strays_from_home, "from pydantic_ai import direct", "agent_service.workers", "pydantic_ai.direct"),
        (rules.strays_from_home, "import httpx", "api_gateway.hop", "shared_clients.outbound"),
        (rules.strays_from_home, "import requests", "agent_service.adapters.x", "shared_clients.telemetry"),
        (rules.strays_from_home, "from socket import create_connection", "agent_service.adapters.x", "socket"),
        (rules.strays_from_home, "import urllib.request", "agent_service.adapters.x", "no module"),
        (rules.strays_from_home, "import sqlalchemy.ext.asyncio", "agent_service.usecases.x", "sqlalchemy"),
    ],
)
def test_a_planted_violation_is_reported(rule: Rule, text: str, module: str, complaint: str) -> None:
    (found, *_) = rule(planted(text, module))
    assert complaint in found


@pytest.mark.parametrize(
    ("rule", "text", "module"),
    [
        (rules.banned_names, "class Database: ...", "request_manager.queries"),
        (rules.missing_docstrings, "", "agent_service.__init__"),
        (rules.bare_suppressions, "x = 1  # noqa: E501, S101 - a table\n", "agent_service.domain"),
        (rules.bare_suppressions, "x = 1  # type: ignore[misc]  # the library has no types\n", "agent_service.domain"),
        (rules.unbounded_queues, "q = asyncio.Queue[int](BUFFER)", "agent_service.workers"),
        (rules.unbounded_pools, "c = TCPConnector(limit=512)", "api_gateway.hop"),
        (rules.stray_sockets, "c = httpx.AsyncClient(transport=t)", "shared_clients.outbound"),
        (rules.stray_sockets, "s = aiohttp.ClientSession()", "shared_clients.egress.connecting"),
        (rules.environment_readers, "x = os.environ['A']", "agent_service.settings"),
        (rules.stray_sql, "x = 'SELECT 1'", "agent_service.queries.runs"),
        (rules.stray_sql, "'''Selected by hand.'''", "agent_service.domain"),
        (rules.strays_from_home, "from pydantic_ai.messages import ModelResponse", "agent_service.usecases.x"),
        (rules.strays_from_home, "from pydantic_ai.models import Model", "agent_service.adapters.models"),
    ],
)
def test_what_is_right_is_left_alone(rule: Rule, text: str, module: str) -> None:
    assert list(rule(planted(text, module))) == []
