"""F1: kill -9 at every named place of every service that reaches it, each under several requests."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared_clients.failpoints import Failpoint
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

    place: Failpoint
    service: str
    after: Failpoint | None = None


MANAGER, AGENT, GATEWAY = "request-manager", "agent-service", "api-gateway"
DURABLE: Final = (
    Failpoint.AFTER_COMMIT_BEFORE_PUBLISH,
    Failpoint.AFTER_PUBLISH_BEFORE_MARK,
    Failpoint.AFTER_EFFECT_BEFORE_COMMIT,
    Failpoint.AFTER_COMMIT_BEFORE_ACK,
)
KILLS: Final = (
    *(Kill(place, service) for service in (MANAGER, AGENT) for place in DURABLE),
    *(
        Kill(Failpoint.AFTER_SWEEP_CLAIM_BEFORE_PUBLISH, service, Failpoint.AFTER_COMMIT_BEFORE_PUBLISH)
        for service in (MANAGER, AGENT)
    ),
    Kill(Failpoint.AFTER_ACCEPT_BEFORE_HAND_OVER, MANAGER),
    Kill(Failpoint.AFTER_ACCEPT_BEFORE_ANSWER, MANAGER),
    Kill(Failpoint.AFTER_CANCEL_BEFORE_ANSWER, MANAGER),
    Kill(Failpoint.AFTER_SETTLE_BEFORE_COMMIT, MANAGER),
    Kill(Failpoint.AFTER_CLAIM_BEFORE_START, AGENT),
    Kill(Failpoint.AFTER_BEGIN_BEFORE_FIRST_STEP, AGENT),
    Kill(Failpoint.AFTER_FRAME_BEFORE_RENEW, AGENT),
    Kill(Failpoint.AFTER_STEP_BEFORE_JOURNAL, AGENT),
    Kill(Failpoint.AFTER_JOURNAL_BEFORE_NEXT_STEP, AGENT),
    Kill(Failpoint.AFTER_STOP_BEFORE_END, AGENT),
    Kill(Failpoint.AFTER_END_BEFORE_COMMIT, AGENT),
    Kill(Failpoint.AFTER_END_BEFORE_TERMINAL_FRAME, AGENT),
    Kill(Failpoint.AFTER_TERMINAL_FRAME_BEFORE_TOLD, AGENT),
    Kill(Failpoint.AFTER_SWEPT_FRAME_BEFORE_TOLD, AGENT, Failpoint.AFTER_END_BEFORE_TERMINAL_FRAME),
    Kill(Failpoint.AFTER_ACCEPT_BEFORE_RELAY, GATEWAY),
    Kill(Failpoint.AFTER_FRAME_BEFORE_NEXT_FRAME, GATEWAY),
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
    trial.notes.append(f"{max(rounds, 1)} x {len(kills)} kinds of kills, at {places} of {len(Failpoint)} failpoints")


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
