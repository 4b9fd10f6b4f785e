"""The agent behind the fake gateway: plays a script as a run's frames, one run of a session after the other."""

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from tests.browser.fake_scripts import Fail, Gate, Replace, Restart, Say, Step, Think, Use, script_for

type Cursor = tuple[int, int]


def now() -> str:
    return datetime.now(UTC).isoformat()


@dataclass
class Run:
    id: str
    session: str
    content: str
    turn: int
    status: str = "accepted"
    answer: str | None = None
    asked_at: str = field(default_factory=now)
    ended_at: str = ""
    epoch: int = 1
    sequence: int = 0
    frames: list[tuple[Cursor, str]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    text: dict[str, str] = field(default_factory=dict)
    after_turn: int = 0
    parts: list[dict[str, object]] = field(default_factory=list)
    error: dict[str, str] | None = None

    async def add(self, type_: str, *, terminal: bool = False, lost: bool = False, **fields: object) -> None:
        self.sequence += 1
        cursor = (self.epoch + 1, 0) if terminal else (self.epoch, self.sequence)
        metadata = {"execution_id": self.id, "epoch": cursor[0], "sequence": cursor[1]}
        data = json.dumps({"type": type_, **fields, "metadata": metadata}, ensure_ascii=False)
        async with self.changed:
            if not lost:
                self.frames.append((cursor, data))
            self.changed.notify_all()

    @property
    def ended(self) -> bool:
        return self.status not in {"accepted", "running"}

    @property
    def said_last(self) -> str:
        return next((text for name, text in reversed(self.text.items()) if ":" not in name), "")

    def view(self) -> dict[str, object]:
        ids: dict[str, object] = {"request_id": self.id, "session_id": self.session}
        return {**ids, "turn": self.turn, "status": self.status, "response": {"content": self.answer}}

    def messages(self) -> list[dict[str, object]]:
        asked = self._message("user", self.content, self.asked_at)
        if not self.ended:
            return [asked]
        parts = [part for part in self.parts if part["type"] == "tool" or self.text.get(str(part["id"]))]
        shown = [{**part, "text": self.text[str(part["id"])]} if part["type"] == "text" else part for part in parts]
        if not shown and self.answer:
            shown = [{"type": "text", "id": f"{self.id}-answer", "text": self.answer}]
        said = self.answer if self.answer is not None else (self.said_last or (self.error or {}).get("message", ""))
        details = {"agent": "demo", "revision": "4f1c2a9e", "models": ["demo-large"], "started_at": self.asked_at}
        usage = {"input_tokens": 1240, "output_tokens": 86, "model_calls": 2}
        answer = self._message("assistant", said, self.ended_at)
        return [asked, {**answer, **details, "usage": usage, "parts": shown, "error": self.error}]

    def _message(self, role: str, content: str, at: str) -> dict[str, object]:
        shared: dict[str, object] = {"turn": self.turn, "request_id": self.id, "status": self.status}
        place = {"after_turn": self.after_turn, "current": True, "branches": [self.id]}
        return {"id": f"{self.id}-{role}", "role": role, "content": content, "created_at": at, **shared, **place}


@dataclass
class Session:
    id: str
    title: str
    created_at: str = field(default_factory=now)
    updated_at: str = field(default_factory=now)
    runs: list[Run] = field(default_factory=list)
    worker: asyncio.Task[None] | None = None
    channel: str = "web"

    def ask(self, content: str, *, instead_of: str | None = None, after: str | None = None) -> Run:
        run = Run(str(uuid4()), self.id, content, len(self.runs) + 1, after_turn=len(self.runs))
        named = next((run for run in self.runs if run.id in {instead_of, after}), None)
        if named is not None:
            run.after_turn = named.turn if after else named.after_turn
        self.runs.append(run)
        self.updated_at = now()
        return run

    def row(self) -> dict[str, object]:
        return {
            "session_id": self.id,
            "title": self.title,
            "agent": "demo",
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "active_request_id": next((run.id for run in self.runs if not run.ended), None),
            "channel": self.channel,
        }

    def match(self, words: str) -> str | None:
        """The text in which the words were said, or None."""
        texts = [text for run in self.runs for text in (run.content, run.answer or "")]
        return next((text for text in texts if words.lower() in text.lower()), None)


class FakeAgent:
    """Performs the runs of a session in their order; `gates` lets the runs pass that wait at one."""

    def __init__(self) -> None:
        self.gates = asyncio.Event()

    def wake(self, session: Session) -> None:
        if session.worker is None or session.worker.done():
            session.worker = asyncio.create_task(self._work(session))

    async def _work(self, session: Session) -> None:
        while run := next((run for run in session.runs if not run.ended), None):
            run.status = "running"
            await run.add("RUN_STARTED", threadId=session.id, runId=run.id)
            for step in script_for(run.content):
                await self._perform(run, step)
                if run.stop.is_set() or run.ended:
                    break
            await self.finish(run)
            session.updated_at = now()

    async def finish(self, run: Run) -> None:
        run.ended_at = now()
        if run.stop.is_set():
            run.status = "cancelled"
            run.error = {"reason": "cancelled_by_caller", "message": "This request was cancelled."}
            await run.add("RUN_ERROR", terminal=True, message="This request was cancelled.", code="cancelled_by_caller")
        elif not run.ended:
            run.status, run.answer = "completed", run.said_last
            await run.add("RUN_FINISHED", terminal=True, threadId=run.session, runId=run.id, result=run.view())

    async def _perform(self, run: Run, step: Step) -> None:
        match step:
            case Say():
                await self._say(run, step)
            case Think():
                await self._think(run, step)
            case Use():
                await self._use(run, step)
            case Gate():
                await _first(self.gates, run.stop)
            case Restart(keep):
                run.epoch, run.sequence = run.epoch + 1, 0
                await run.add("CUSTOM", name="reset", value={} if keep is None else {"keep": f"1-{keep}"})
                await run.add("MESSAGES_SNAPSHOT", messages=[])
                run.text.popitem()
                run.parts.pop()
            case Replace(content, lost):
                message = next(reversed(run.text))
                run.text[message] = content
                await run.add("TEXT_MESSAGE_CONTENT", lost=True, messageId=message, delta=lost)
                await run.add("CUSTOM", name="resync", value={"messageId": message, "content": content})
            case Fail(code, message):
                run.status, run.error = "failed", {"reason": code, "message": message}
                await run.add("RUN_ERROR", terminal=True, message=message, code=code)

    async def _say(self, run: Run, step: Say) -> None:
        if step.message not in run.text:
            run.text[step.message] = ""
            run.parts.append({"type": "text", "id": step.message})
            await run.add("TEXT_MESSAGE_START", messageId=step.message, role="assistant")
        for piece in step.pieces:
            if run.stop.is_set():
                return
            run.text[step.message] += piece
            await run.add("TEXT_MESSAGE_CONTENT", messageId=step.message, delta=piece)
            await asyncio.sleep(step.delay)

    async def _think(self, run: Run, step: Think) -> None:
        message = f"{step.message}:reasoning"
        run.parts.append({"type": "reasoning", "id": message, "text": "".join(step.pieces)})
        run.text[message] = "".join(step.pieces)
        await run.add("REASONING_START", messageId=message)
        await run.add("REASONING_MESSAGE_START", messageId=message, role="reasoning")
        for piece in step.pieces:
            await run.add("REASONING_MESSAGE_CONTENT", messageId=message, delta=piece)
        await run.add("REASONING_MESSAGE_END", messageId=message)
        await run.add("REASONING_END", messageId=message)

    async def _use(self, run: Run, step: Use) -> None:
        call = f"call-{run.sequence}"
        await run.add("TOOL_CALL_START", toolCallId=call, toolCallName=step.tool)
        await run.add("TOOL_CALL_ARGS", toolCallId=call, delta=step.arguments)
        await run.add("TOOL_CALL_END", toolCallId=call)
        fields: dict[str, Any] = {"messageId": f"r-{call}", "toolCallId": call, "milliseconds": step.milliseconds}
        if step.failed:
            fields["error"] = step.result
        await run.add("TOOL_CALL_RESULT", content=step.result, **fields)
        tool = {"type": "tool", "id": call, "name": step.tool, "arguments": step.arguments, "result": step.result}
        run.parts.append({**tool, "failed": step.failed, "milliseconds": step.milliseconds})


async def _first(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
