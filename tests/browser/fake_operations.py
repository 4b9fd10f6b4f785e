"""Dead letters and runs for the fake gateway, as the services report them."""

import base64
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.browser.fake_problems import missing

type Row = dict[str, object]

NOW = datetime(2026, 11, 30, 14, 2, 31, tzinfo=UTC)


class FakeOperations:
    """The routes of dead letters and runs.

    Attributes:
        letters, run_reports: by their ids.
        settled: the id, decision and reason of each letter that was decided about.
    """

    def __init__(self) -> None:
        self.letters: dict[str, Row] = {}
        self.settled: list[tuple[str, str, str]] = []
        self.run_reports: dict[str, Row] = {}

    async def list_letters(self, request: Request) -> Response:
        state = request.query_params.get("state", "dead")
        return JSONResponse({"letters": [letter for letter in self.letters.values() if letter["state"] == state]})

    async def letter(self, request: Request) -> Response:
        letter = self.letters.get(request.path_params["id"])
        if letter is None:
            return missing("dead letter")
        if request.query_params.get("content") == "true":
            data = base64.b64encode(b'{"content":"Which berth is free?","agent":null}').decode()
            return JSONResponse({**letter, "content": {"attributes": {"id": "e-1"}, "data_base64": data}})
        return JSONResponse(letter)

    async def settle_letter(self, request: Request) -> Response:
        body = await request.json()
        self.settled.append((request.path_params["id"], request.path_params["how"], body.get("reason", "")))
        del self.letters[request.path_params["id"]]
        return JSONResponse({"id": request.path_params["id"], "outcome": f"{request.path_params['how']}ed"})

    async def list_runs(self, _: Request) -> Response:
        rows = [{name: value for name, value in run.items() if name != "steps"} for run in self.run_reports.values()]
        return JSONResponse({"runs": rows})

    async def run_report(self, request: Request) -> Response:
        report = self.run_reports.get(request.path_params["id"])
        return missing("run") if report is None else JSONResponse(report)


def letter(kind: str, reason: str, *, service: str = "agent-service", state: str = "dead", minutes: int = 5) -> Row:
    """A dead letter that arrived some minutes ago."""
    at = NOW - timedelta(minutes=minutes)
    return {
        "id": f"{service}.in.{uuid4().hex}",
        "service": service,
        "box": "inbox",
        "state": state,
        "type": f"flotilla.{kind}.v1",
        "source": "/flotilla/request-manager",
        "event_id": str(uuid4()),
        "tenant": "default",
        "correlation_id": str(uuid4()),
        "reason": reason,
        "attempts": 8,
        "first_seen": (at - timedelta(minutes=3)).isoformat(),
        "died_at": at.isoformat(),
        "size": 612,
        "malformed": False,
    }


def step(key: str, name: str, start: float, end: float, *, epoch: int = 1, failed: bool = False) -> Row:
    """A step from one second to another after the run began."""
    row: Row = {
        "key": key,
        "kind": key.partition(":")[0],
        "name": name,
        "epoch": epoch,
        "started_at": (NOW + timedelta(seconds=start)).isoformat(),
        "finished_at": (NOW + timedelta(seconds=end)).isoformat(),
        "failed": failed,
    }
    return {**row, "input_tokens": 812, "output_tokens": 64, "calls": 2} if row["kind"] == "model" else row


def run(status: str, *steps: Row, epoch: int = 1, tries: int = 1, reason: str | None = None) -> Row:
    """A run with its finished steps."""
    ends = [str(one["finished_at"]) for one in steps]
    row: Row = {
        "request_id": str(uuid4()),
        "session_id": str(uuid4()),
        "turn": 3,
        "status": status,
        "agent": "assistant",
        "revision": "4f1c2a9e0d3b5c71",
        "tries": tries,
        "epoch": epoch,
        "usage": {"input_tokens": 1904, "output_tokens": 211, "model_calls": 2},
        "due": False,
        "created_at": NOW.isoformat(),
        "started_at": NOW.isoformat(),
        "expires_at": (NOW + timedelta(minutes=15)).isoformat(),
        "steps": list(steps),
    }
    if status not in {"accepted", "running"}:
        row["finished_at"] = max(ends, default=(NOW + timedelta(seconds=2)).isoformat())
    return {**row, "reason": reason} if reason else row


def waterfall() -> Row:
    """A run with parallel tools, one of which failed, that a second worker took over."""
    return run(
        "completed",
        step("model:1", "gpt-5-mini", 0, 1.9),
        step("tool:a", "calculator", 1.9, 1.95),
        step("tool:b", "search.documents", 1.9, 3.4, failed=True),
        step("model:2", "gpt-5-mini", 6.6, 8.2, epoch=2),
        epoch=2,
    )
