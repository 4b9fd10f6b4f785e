"""F1: kill -9 at every named place of every service that reaches it, each under several requests."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.chaos.failpoints import (
    FAILPOINTS,
    AgentFailpoint,
    FrameFailpoint,
    GatewayFailpoint,
    ManagerFailpoint,
    WorkFailpoint,
)
from tests.chaos.registry import Scenario
from tests.chaos.trial import Trial

ROUNDS: Final = 3
"""Kills at each place in the full form; once in the short one."""
FEW: Final = 6
"""Places of the short form in a sample."""
FULL_SECONDS: Final = 360.0
"""After which no further round begins."""
FIRES_SECONDS: Final = 60.0
"""Within which people talking bring some process to an armed place."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One process at one place.

    Attributes:
        service: the one to die.
        after: a place where one dies first, because only then this place is reached.
    """

    place: StrEnum
    service: str
    after: StrEnum | None = None


MANAGER, AGENT, GATEWAY = "request-manager", "agent-service", "api-gateway"
DURABLE: Final = (
    WorkFailpoint.AFTER_COMMIT_BEFORE_PUBLISH,
    WorkFailpoint.AFTER_PUBLISH_BEFORE_MARK,
    WorkFailpoint.AFTER_EFFECT_BEFORE_COMMIT,
    WorkFailpoint.AFTER_COMMIT_BEFORE_ACK,
)
KILLS: Final = (
    *(Kill(place, service) for service in (MANAGER, AGENT) for place in DURABLE),
    *(
        Kill(WorkFailpoint.AFTER_SWEEP_CLAIM_BEFORE_PUBLISH, service, WorkFailpoint.AFTER_COMMIT_BEFORE_PUBLISH)
        for service in (MANAGER, AGENT)
    ),
    Kill(ManagerFailpoint.AFTER_ACCEPT_BEFORE_HAND_OVER, MANAGER),
    Kill(ManagerFailpoint.AFTER_ACCEPT_BEFORE_ANSWER, MANAGER),
    Kill(ManagerFailpoint.AFTER_CANCEL_BEFORE_ANSWER, MANAGER),
    Kill(ManagerFailpoint.AFTER_SETTLE_BEFORE_COMMIT, MANAGER),
    Kill(AgentFailpoint.AFTER_CLAIM_BEFORE_START, AGENT),
    Kill(AgentFailpoint.AFTER_BEGIN_BEFORE_FIRST_STEP, AGENT),
    Kill(FrameFailpoint.AFTER_FRAME_BEFORE_RENEW, AGENT),
    Kill(AgentFailpoint.AFTER_STEP_BEFORE_JOURNAL, AGENT),
    Kill(AgentFailpoint.AFTER_JOURNAL_BEFORE_NEXT_STEP, AGENT),
    Kill(AgentFailpoint.AFTER_STOP_BEFORE_END, AGENT),
    Kill(AgentFailpoint.AFTER_END_BEFORE_COMMIT, AGENT),
    Kill(AgentFailpoint.AFTER_END_BEFORE_TERMINAL_FRAME, AGENT),
    Kill(AgentFailpoint.AFTER_TERMINAL_FRAME_BEFORE_CLEAR, AGENT),
    Kill(AgentFailpoint.AFTER_SWEPT_FRAME_BEFORE_CLEAR, AGENT, AgentFailpoint.AFTER_END_BEFORE_TERMINAL_FRAME),
    Kill(GatewayFailpoint.AFTER_ACCEPT_BEFORE_RELAY, GATEWAY),
    Kill(GatewayFailpoint.AFTER_FRAME_BEFORE_NEXT_FRAME, GATEWAY),
)


async def kill_everywhere(trial: Trial) -> None:
    """In the full form one after the other, in rounds; in the short one each place once, the services side by side."""
    rounds, began = 0, trial.clock()
    kills = _each_once(trial) if trial.short else KILLS
    async with trial.crowd(8 if trial.short else 6):
        if trial.short:
            lanes = [[kill for kill in kills if kill.service == service] for service in (MANAGER, AGENT, GATEWAY)]
            await asyncio.gather(*(_in_turn(trial, lane) for lane in lanes))
        while not trial.short and rounds < ROUNDS and (rounds == 0 or trial.clock() - began < FULL_SECONDS):
            await _in_turn(trial, kills)
            rounds += 1
    places = len({kill.place for kill in kills})
    trial.notes.append(f"{max(rounds, 1)} x {len(kills)} kinds of kills, at {places} of {len(FAILPOINTS)} failpoints")


def _each_once(trial: Trial) -> Sequence[Kill]:
    """Leave one kill of each place, by whichever service; of a few places where that is enough."""
    by_place = {kill.place: kill for kill in trial.chance.sample(KILLS, len(KILLS))}
    places = trial.chance.sample(sorted(by_place), FEW) if trial.few else by_place
    return [kill for kill in KILLS if kill.place in places and by_place[kill.place] is kill]


async def _in_turn(trial: Trial, kills: Sequence[Kill]) -> None:
    for kill in kills:
        places = [kill.after, kill.place] if kill.after else [kill.place]
        await asyncio.gather(*(trial.die_at(place, kill.service, FIRES_SECONDS) for place in places))


SCENARIO = Scenario(
    name="F1",
    title="kill -9 at every failpoint of every service",
    play=kill_everywhere,
    first_ok=2.0,
    recovered=8.0,
    short_seconds=300.0,
    full_seconds=900.0,
)
