"""A run from its claim to its end, with the real loop, journal, frames and scripted model, and with failures on demand.

Faked: the failures. `FailingDatabase` is the real one that crashes or loses its connection at a chosen call, before the
call has happened or after it is durable.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from pydantic_ai.messages import ModelMessage, ModelResponse

from agent_service.adapters.models import ModelCandidate, ModelChain, RetryPolicy
from agent_service.adapters.scripted import ScriptedModel
from agent_service.adapters.scripts import ModelScript
from agent_service.adapters.tools import Toolbox
from agent_service.domain.runs import ClaimedRun
from agent_service.errors import UnknownAgent
from agent_service.ports import Frames, Models, Tool
from agent_service.usecases.perform_run import AgentRuntime, CancellationScope, RunDependencies, perform_run
from run_frames.log import log_key, read_log
from shared_clients.postgres import Database, Tx
from shared_clients.redis import Redis
from shared_models.agents import Agent, ModelRef, parse_agent, parse_document
from tests.simulators.viewer import Viewer, seen
from tests.simulators.working import Row, Session, Worker

AGENT = """
apiVersion: flotilla/v1
kind: Agent
metadata: {name: assistant}
spec:
  model: {provider: scripted, name: test}
  tools: [calculator]
  limits: {steps: 6, seconds: 30}
"""
HEAD = "apiVersion: flotilla/v1\nkind: ModelScript\nmetadata: {name: test}\n"
NO_RETRIES = RetryPolicy(attempts=1, rounds=1, first_pause=0.001)


@dataclass
class CountingModels:
    """Models that count the calls for a reply, may fail like a bug, and may return a reply that nothing checked."""

    models: Models
    replies: int = 0
    bug: Exception | None = None
    unchecked: ModelResponse | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    called_twice: asyncio.Event = field(default_factory=asyncio.Event)

    async def stream_reply(
        self, history: Sequence[ModelMessage], tools: Sequence[Tool], frames: Frames
    ) -> ModelResponse:
        self.replies += 1
        self.begun.set()
        if self.replies == 2:
            self.called_twice.set()
        if self.bug is not None:
            raise self.bug
        if self.unchecked is not None:
            return self.unchecked
        return await self.models.stream_reply(history, tools, frames)


class ScriptedAgents:
    """One agent whose model follows a script; the calls of its model and of its tools are counted."""

    def __init__(self, script: str, *, agent: str = AGENT) -> None:
        self.agent: Agent = parse_agent("assistant-v1.yaml", agent)
        model = ScriptedModel(parse_document("test.yaml", HEAD + script, ModelScript))
        chain = ModelChain([ModelCandidate(ModelRef(provider="scripted", name="test"), model)], retry_policy=NO_RETRIES)
        self.models = CountingModels(chain)
        self.tool_calls = 0
        self.tools = [self._counted(tool) for tool in Toolbox().pick(self.agent.spec.tools)]

    def runtime_of(self, name: str | None) -> AgentRuntime:
        if name not in {None, "assistant"}:
            raise UnknownAgent(f"{name!r}")
        return AgentRuntime(self.agent, self.models, self.tools)

    def reset_counts(self) -> None:
        self.models.replies = self.tool_calls = 0

    def _counted(self, tool: Tool) -> Tool:
        async def call(arguments: Mapping[str, object]) -> str:
            self.tool_calls += 1
            return await tool.call(arguments)

        return replace(tool, call=call)


class FailingDatabase(Database):
    """The same schema, which raises at the calls with the given numbers (from 1), before or after they are durable."""

    def __init__(
        self,
        database: Database,
        before: Mapping[int, BaseException] | None = None,
        after: Mapping[int, BaseException] | None = None,
    ) -> None:
        super().__init__(database._engine, database.schema)
        self.calls = 0
        self._before = before or {}
        self._after = after or {}

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Tx]:
        number = self._begin()
        async with super().transaction() as tx:
            yield tx
        self._end(number)

    @asynccontextmanager
    async def autocommit(self) -> AsyncGenerator[Tx]:
        number = self._begin()
        async with super().autocommit() as tx:
            yield tx
        self._end(number)

    def _begin(self) -> int:
        self.calls += 1
        if (failure := self._before.get(self.calls)) is not None:
            raise failure
        return self.calls

    def _end(self, number: int) -> None:
        if (failure := self._after.get(number)) is not None:
            raise failure


@dataclass
class RunHarness:
    """One worker of agent-service, one conversation with it, and the backends of its runs."""

    database: Database
    redis: Redis
    worker: Worker
    session: Session = field(default_factory=Session)

    async def claimed(self, content: str = "hi", turn: int = 1) -> ClaimedRun:
        """Store a new request, and claim its run."""
        await self.worker.inbox.consume(self.session.created(turn, content))
        return await self.worker.claim_one()

    async def taken_over(self) -> ClaimedRun:
        """Let the worker die, and let a new worker claim its run and take its place."""
        await self.worker.die()
        self.worker = await Worker(self.database).open()
        return await self.worker.claim_one()

    def perform(
        self, agents: ScriptedAgents, run: ClaimedRun, *, database: Database | None = None, redis: Redis | None = None
    ) -> "PerformedRun":
        dependencies = RunDependencies(database or self.database, self.worker.outbox, redis or self.redis, agents)
        cancellation = CancellationScope()
        return PerformedRun(asyncio.ensure_future(perform_run(dependencies, run, cancellation)), cancellation)

    async def answer(self, agents: ScriptedAgents, content: str = "hi", turn: int = 1) -> Row:
        """Perform the run of a request, and return its row."""
        await self.perform(agents, await self.claimed(content, turn)).task
        return await self.row(turn)

    async def row(self, turn: int = 1) -> Row:
        return await self.session.run(self.database, turn)

    async def published_types(self, turn: int = 1) -> list[str]:
        return await self.session.published_types(self.database, turn)

    async def viewer(self, turn: int = 1) -> Viewer:
        """Return a viewer that has read the whole log of a run."""
        return seen(await read_log(self.redis, log_key("acme", self.session.request(turn))))


@dataclass
class PerformedRun:
    """A run that is being performed, and the scope that cancels it."""

    task: asyncio.Future[None]
    cancellation: CancellationScope
