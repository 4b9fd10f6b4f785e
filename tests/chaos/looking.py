"""Reads the facts: first waits until everything has come to rest, then looks at it as an operator would."""

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Final, cast
from uuid import UUID

import aiohttp
import asyncpg
from redis.asyncio import Redis

from durable_work.audit.anchors import read_anchors, read_keys
from durable_work.audit.verifying import verify
from fleet.anchoring import anchor_heads, load_witness, open_schemas
from fleet.settings import FleetSettings
from run_frames.log import log_key
from shared_clients.errors import Permanent
from shared_clients.identity import private_pem
from shared_models.services import schemas
from tests.chaos.facts import Asked, Facts, Row, Run
from tests.chaos.ground import DATABASE_AWAY, Ground

REST_SECONDS: Final = 60.0
"""Without progress, after which what is left counts as left for good."""
TENANT: Final = "default"

LEFT: Final[Mapping[str, str]] = {
    "requests not ended": "SELECT count(*) FROM request_manager.requests WHERE completed_at IS NULL",
    "runs not ended": "SELECT count(*) FROM agent_service.runs WHERE finished_at IS NULL",
    "terminal frames due": "SELECT count(*) FROM agent_service.runs WHERE terminal_frame IS NOT NULL",
    "runs held without a lease": (
        "SELECT count(*) FROM agent_service.runs r WHERE worker IS NOT NULL AND NOT EXISTS "
        "(SELECT FROM agent_service.worker_leases l WHERE l.worker = r.worker AND l.expires_at > now())"
    ),
    **{f"{schema}: unsealed audit entries": f"SELECT count(*) FROM {schema}.audit_waiting" for schema in schemas()},
    **{
        f"{schema}: {what}": f"SELECT count(*) FROM {schema}.{table} WHERE state = '{state}'"
        for schema, entry in schemas().items()
        if entry.dead_letters
        for what, table, state in (
            ("events in the outbox", "outbox", "pending"),
            ("unpublishable events", "outbox", "dead"),
            ("parked events", "inbox", "parked"),
            ("dead letters", "inbox", "dead"),
        )
    },
}
"""What has to be empty at rest, and how it is counted."""

ROWS: Final = """
    SELECT request_id::text, content, session_id::text, turn, status, response->>'content' AS answer,
           extract(epoch FROM created_at)::float8 AS created_at,
           extract(epoch FROM completed_at)::float8 AS completed_at
    FROM request_manager.requests WHERE content LIKE '%' || $1 || '-%' AND retry_of IS NULL ORDER BY created_at
"""
"""Without what an operator had asked again."""
RUNS: Final = """
    SELECT r.execution_id::text, coalesce(q.content, r.content) AS content, r.session_id::text, r.turn, r.status,
           r.epoch, r.answer, r.terminal_frame IS NOT NULL AS untold, r.worker IS NOT NULL AS held,
           (SELECT count(*) FROM agent_service.messages m WHERE m.execution_id = r.execution_id
            AND m.ordinal = 1)::int AS said
    FROM agent_service.runs r LEFT JOIN request_manager.requests q ON q.request_id = r.execution_id
    WHERE coalesce(q.content, r.content) LIKE '%' || $1 || '-%' AND q.retry_of IS NULL ORDER BY r.created_at
"""
"""A run that stands for a request which could not become one does not know what was asked."""

CANCELS: Final = """
    SELECT subject, count(*)::int AS times FROM request_manager.audit_entries
    WHERE action = 'request.cancel_asked' GROUP BY subject
"""


async def rest(ground: Ground) -> None:
    """Wait until nothing is left to do, for as long as there is less and less of it; the checker finds what stays."""
    least, since = math.inf, monotonic()
    while least and monotonic() - since < REST_SECONDS:
        left = await _left(ground)
        if left < least:
            least, since = left, monotonic()
        await asyncio.sleep(0.25)


async def _left(ground: Ground) -> float:
    """Count what is left to do."""
    try:
        async with ground.database() as database:
            return float(sum([await _count(database, query) for query in LEFT.values()]))
    except DATABASE_AWAY:
        return math.inf


async def look(ground: Ground, label: str) -> Facts:
    """Return the facts of one scenario; what is left over is everybody's."""
    async with ground.database() as database:
        rows = [Row(**row) for row in await database.fetch(ROWS, label)]
        runs = [Run(**row) for row in await database.fetch(RUNS, label)]
        left = {name: await _count(database, query) for name, query in LEFT.items()}
        cancels = {row["subject"]: row["times"] for row in await database.fetch(CANCELS)}
    logs = await _logs(ground, [row.request_id for row in rows])
    return Facts(rows, runs, logs, await _calls(ground, label), left, cancels, await _broken_records(ground))


async def forget_calls(ground: Ground) -> None:
    """Have the provider forget what it was asked, before a scenario begins."""
    async with aiohttp.ClientSession() as session:
        (await session.delete(f"{ground.provider}/log")).raise_for_status()


async def _broken_records(ground: Ground) -> list[str]:
    """Be the audit log's witness: sign what is new, hold all against what was signed before, and say what is wrong."""
    settings = FleetSettings(home=ground.folder / "witness")
    witness = load_witness(settings, "server")
    url = ground.database_url.replace("postgresql:", "postgresql+asyncpg:")
    async with open_schemas(url) as schemas:
        try:
            await anchor_heads(schemas, witness, begin=True)
        except Permanent as error:
            return [str(error)]
        keys = read_keys([private_pem(witness.key)])
        reports = [await verify(schemas[name], read_anchors(witness.folder, name, keys)) for name in schemas]
    return [f"{report.chain}, number {fault.number}: {fault.what}" for report in reports for fault in report.faults]


async def _count(database: asyncpg.Connection, query: str) -> int:
    return int(await database.fetchval(query))


async def _logs(ground: Ground, ids: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    logs: dict[str, list[tuple[str, str]]] = {}
    async with Redis.from_url(ground.stores["redis"].url, protocol=2) as redis:
        for request_id in ids:
            entries = cast(
                "list[tuple[bytes, dict[bytes, bytes]]]", await redis.xrange(log_key(TENANT, UUID(request_id)))
            )
            if entries:
                logs[request_id] = [(cursor.decode(), entry[b"t"].decode()) for cursor, entry in entries]
    return logs


async def _calls(ground: Ground, label: str) -> list[Asked]:
    """Return the calls with a new question; those after a tool's result only repeat it."""
    async with aiohttp.ClientSession() as session, session.get(f"{ground.provider}/log") as response:
        calls: list[dict[str, Any]] = json.loads(await response.read())
    asked = [tuple(_text(message) for message in call["messages"] if message["role"] == "user") for call in calls]
    return [Asked(contents) for contents in asked if contents and f"{label}-" in contents[-1]]


def _text(message: Mapping[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
