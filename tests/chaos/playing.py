"""Plays scenarios: everybody up, the scenario, rest, the facts, the judgement."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from tests.chaos.checking import Case, Fault, Finding, attempts_by_outcome, check, recoveries
from tests.chaos.facts import Facts
from tests.chaos.ground import Ground
from tests.chaos.history import Entry, History, Kind, Outcome, line_of
from tests.chaos.looking import forget_calls, look, rest
from tests.chaos.registry import Scenario
from tests.chaos.scoreboard import Score, percentile
from tests.chaos.trial import Trial, crowdedness, too_long
from tests.client import Client

BROKER: Final = "Apache Kafka 4.3.1"
MOST_CROWDED: Final = 3.0
"""How many times the limit of a scenario is stretched at most, where others want this machine as well."""
MOST_TOLD: Final = 12
"""Findings of one scenario that are told in full; more of them would tell the same."""


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario's score, and what to read where it failed."""

    score: Score
    told: str

    @property
    def good(self) -> bool:
        return not self.score.findings


async def play(ground: Ground, scenario: Scenario, *, short: bool, seed: int, few: bool = False) -> Played:
    """Play one scenario and judge it; with `few`, the short form at some of its places only."""
    began = monotonic()
    label = f"{scenario.name}x{seed:x}"
    file = ground.folder / f"history-{label}.jsonl"
    await ground.up()
    await forget_calls(ground)
    with History(file) as history:
        async with Client(ground.fleet) as client:
            trial = Trial(ground, client, history, label, seed, short, few)
            try:
                seconds = scenario.short_seconds if short else scenario.full_seconds
                async with asyncio.timeout(seconds * min(MOST_CROWDED, crowdedness())):
                    await scenario.play(trial)
                    await trial.settled_probes()
                    await ground.up()
            except Exception as error:  # noqa: BLE001 - the edge of a scenario: the others are played all the same
                trial.findings.append(Finding(Fault.GOAL, "", f"the scenario was broken off: {_said(error)}"))
        await rest(ground)
        case = Case(history.entries, await look(ground, label), frames_lost=scenario.frames_lost)
    findings = [*trial.findings, *check(case)]
    if scenario.failures:
        findings = [finding for finding in findings if finding.fault is not Fault.UNANSWERED]
    score = Score(
        scenario=scenario.name,
        title=scenario.title,
        n=len(case.asked),
        unknown=attempts_by_outcome(case)[Outcome.UNKNOWN],
        faults=sum(entry.kind is Kind.FAULT for entry in case.entries),
        findings=[*findings, *([] if short else _missed(scenario, case))],
        recoveries=recoveries(case),
        broker=BROKER,
        seed=seed,
        seconds=monotonic() - began,
        notes=trial.notes,
    )
    return Played(score, told(score, case, ground.folder, file))


def _missed(scenario: Scenario, case: Case) -> list[Finding]:
    """Hold the recovery times of the full form against the scenario's goals, with tolerance.

    The short form is played beside other tests, so that its times say more about them than about the services.
    """
    found = recoveries(case)
    goals = {
        "to the first new acceptance": (scenario.first_ok, [one.first_ok for one in found if one.first_ok is not None]),
        "to the last stranded end": (scenario.recovered, [one.stranded for one in found if one.stranded is not None]),
    }
    missed = []
    for what, (goal, seconds) in goals.items():
        high = percentile(sorted(seconds), 0.99)
        if goal is not None and high is not None and too_long(high, goal):
            missed.append(Finding(Fault.GOAL, "", f"{what}: p99 is {high:.2f} s; the goal is {goal:g} s"))
    return missed


def told(score: Score, case: Case, folder: Path, file: Path) -> str:
    """Say what was found: which request, what was expected, and its history."""
    lines = [f"{score.scenario} with SEED={score.seed}: {len(score.findings)} findings"]
    for finding in score.findings[:MOST_TOLD]:
        lines.append(f"- {finding.fault}: {finding.found}")
        lines += [f"    {line}" for line in _story(finding.content, case.entries, case.facts)]
    lines.append(f"history: {file}; logs: {folder / 'logs'}")
    return "\n".join(lines)


def _story(content: str, entries: Sequence[Entry], facts: Facts) -> list[str]:
    """Return all that is known of one request."""
    if not content:
        return []
    ids = {row.request_id for row in facts.rows if row.content == content}
    ids |= {entry.request_id for entry in entries if entry.content == content and entry.request_id}
    story = [
        line_of(entry).decode().strip() for entry in entries if entry.content == content or entry.request_id in ids
    ]
    story += [str(row) for row in facts.rows if row.content == content]
    story += [str(run) for run in facts.runs if run.execution_id in ids]
    story += [f"log of {request_id}: {facts.logs[request_id]}" for request_id in ids if request_id in facts.logs]
    return [line[:2000] for line in story]


def _said(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_said(one) for one in error.exceptions)
    return f"{type(error).__name__}: {error}"
