"""The scoreboard: a line a scenario, every zero beside its N and the bound that N allows, and the same as JSON."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from pydantic_core import to_json

from tests.chaos.checking import Fault, Finding, Recovery

COLUMNS = (Fault.LOST, Fault.DUPLICATED, Fault.ORDER, Fault.STREAM)


@dataclass(frozen=True, slots=True)
class Score:
    """How a scenario went.

    Attributes:
        n: requests that people asked for.
        unknown: attempts whose outcome nobody told, all settled by their keys.
        faults: how often something was broken.
    """

    scenario: str
    title: str
    n: int
    unknown: int
    faults: int
    findings: Sequence[Finding]
    recoveries: Sequence[Recovery]
    broker: str
    seed: int
    seconds: float
    notes: Sequence[str] = ()

    def count(self, fault: Fault) -> int:
        return Counter(finding.fault for finding in self.findings)[fault]

    @property
    def others(self) -> int:
        return sum(finding.fault not in COLUMNS for finding in self.findings)

    @property
    def stranded(self) -> list[float]:
        return sorted(one.stranded for one in self.recoveries if one.stranded is not None)

    @property
    def first_oks(self) -> list[float]:
        return sorted(one.first_ok for one in self.recoveries if one.first_ok is not None)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the nearest rank of sorted values; None where there are none."""
    return values[max(0, ceil(share * len(values)) - 1)] if values else None


def table(scores: Sequence[Score]) -> str:
    """Return the scoreboard as people read it."""
    head = (
        f"{'':4}  {'N':>6}  {'faults':>6}  {'lost':>9}  {'twice':>9}  {'order':>9}  {'streams':>9}  {'other':>5}  "
        f"{'accepts again p50/p99':>21}  {'recovered p50/p99':>17}  {'bound':>8}  seed"
    )
    lines = [head]
    for score in scores:
        bound = f"< {3 / score.n:.1e}" if score.n else "-"
        zeros = "  ".join(f"{f'{score.count(fault)} of {score.n}':>9}" for fault in COLUMNS)
        lines.append(
            f"{score.scenario:4}  {score.n:>6}  {score.faults:>6}  {zeros}  {score.others:>5}  "
            f"{_both(score.first_oks):>21}  {_both(score.stranded):>17}  {bound:>8}  {score.seed}  {score.title}"
        )
        lines += [f"        {note}" for note in score.notes]
    brokers = ", ".join(sorted({score.broker for score in scores}))
    lines.append(f"bound: 3/N, which the true rate of what is 0 of N is below, at 95 %. Broker: {brokers}.")
    return "\n".join(lines)


def dump(scores: Sequence[Score]) -> bytes:
    """Return the scoreboard as programs read it."""
    return to_json(
        [
            {
                "scenario": score.scenario,
                "n": score.n,
                "lost": score.count(Fault.LOST),
                "duplicated": score.count(Fault.DUPLICATED),
                "order_breaks": score.count(Fault.ORDER),
                "stream_gaps": score.count(Fault.STREAM),
                "recovery_p50_s": _rounded(percentile(score.stranded, 0.5)),
                "recovery_p99_s": _rounded(percentile(score.stranded, 0.99)),
                "broker": score.broker,
                "seed": score.seed,
            }
            for score in scores
        ],
        indent=1,
    )


def _both(values: Sequence[float]) -> str:
    middle, high = percentile(values, 0.5), percentile(values, 0.99)
    return "-" if middle is None or high is None else f"{middle:.2f} / {high:.2f} s"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
