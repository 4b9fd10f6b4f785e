"""The names of the agents that exist, so that a request for another one is refused before it is accepted.

agent-service alone knows its agents. The gateway keeps the names for a minute, and asks again before it refuses one.
Where it cannot ask, it refuses nothing: the request is accepted, and its run says that there is no such agent.
"""

import time
from collections.abc import Callable
from typing import Final

import structlog
from pydantic import BaseModel, ValidationError

from api_gateway.hop import Call, Hop
from shared_models.problems import Problem, unknown_agent
from shared_models.requests import NewRequest, Principal

log = structlog.get_logger()

AGENTS: Final = "/api/v1/agents"
KEPT_SECONDS: Final = 60.0


class _Listed(BaseModel):
    name: str


class _AgentList(BaseModel):
    """The part of agent-service's list that is needed here."""

    agents: tuple[_Listed, ...]


class AgentNames:
    """The agents' names, as agent-service last told them.

    Args:
        hop: the way to agent-service.
        clock: seconds that only go forward.
    """

    def __init__(self, hop: Hop, clock: Callable[[], float] = time.monotonic) -> None:
        self._hop = hop
        self._clock = clock
        self._names = frozenset[str]()
        self._valid_until = 0.0

    async def refuse_unknown(self, caller: Principal, body: bytes) -> None:
        """Refuse a request whose body names an agent that does not exist; any other body is left to request-manager.

        Raises:
            Problem: UNKNOWN_AGENT, with the names that exist.
        """
        name = _named_agent(body)
        if name is None or (name in self._names and self._clock() < self._valid_until):
            return
        if not await self._ask(caller):
            return
        if name not in self._names:
            raise unknown_agent(name, self._names)

    async def _ask(self, caller: Principal) -> bool:
        """Ask agent-service for the names; return False where it does not tell them."""
        try:
            answer = await self._hop.call("agent-service", caller, Call("GET", AGENTS))
        except Problem as problem:
            log.warning("agents_not_listed", why=problem.detail)
            return False
        if answer.status != 200:
            log.warning("agents_not_listed", status=answer.status)
            return False
        self._names = frozenset(agent.name for agent in _AgentList.model_validate_json(answer.body).agents)
        self._valid_until = self._clock() + KEPT_SECONDS
        return True


def _named_agent(body: bytes) -> str | None:
    """Return the agent that a body names; most bodies name none, and are not parsed."""
    if b'"agent"' not in body:
        return None
    try:
        return NewRequest.model_validate_json(body).agent
    except ValidationError:
        return None
