"""Named places where a test may have the process die: a crash between two steps is a case, not a coincidence.

Unarmed, which is always so in production, `reached` is one comparison. Armed with a folder, a process that reaches a
place kills itself (SIGKILL) if a file of the place's name lies there and it is the first to take it away: so one file
is one death, and running processes can be armed. A file that holds the name of a service is for that service alone.
"""

import os
import signal
from enum import StrEnum
from pathlib import Path


class Failpoint(StrEnum):
    """The places, each named for what has happened and what has not. Tests hold that each is used, and where."""

    # durable_work
    AFTER_COMMIT_BEFORE_PUBLISH = "after-commit-before-publish"
    AFTER_PUBLISH_BEFORE_MARK = "after-publish-before-mark"
    AFTER_SWEEP_CLAIM_BEFORE_PUBLISH = "after-sweep-claim-before-publish"
    AFTER_EFFECT_BEFORE_COMMIT = "after-effect-before-commit"
    AFTER_COMMIT_BEFORE_ACK = "after-commit-before-ack"
    # api-gateway
    AFTER_ACCEPT_BEFORE_RELAY = "after-accept-before-relay"
    AFTER_FRAME_BEFORE_NEXT_FRAME = "after-frame-before-next-frame"
    # request-manager
    AFTER_ACCEPT_BEFORE_HAND_OVER = "after-accept-before-hand-over"
    AFTER_ACCEPT_BEFORE_ANSWER = "after-accept-before-answer"
    AFTER_CANCEL_BEFORE_ANSWER = "after-cancel-before-answer"
    AFTER_SETTLE_BEFORE_COMMIT = "after-settle-before-commit"
    # agent-service
    AFTER_CLAIM_BEFORE_START = "after-claim-before-start"
    AFTER_BEGIN_BEFORE_FIRST_STEP = "after-begin-before-first-step"
    AFTER_FRAME_BEFORE_RENEW = "after-frame-before-renew"
    AFTER_STEP_BEFORE_JOURNAL = "after-step-before-journal"
    AFTER_JOURNAL_BEFORE_NEXT_STEP = "after-journal-before-next-step"
    AFTER_STOP_BEFORE_END = "after-stop-before-end"
    AFTER_END_BEFORE_COMMIT = "after-end-before-commit"
    AFTER_END_BEFORE_TERMINAL_FRAME = "after-end-before-terminal-frame"
    AFTER_TERMINAL_FRAME_BEFORE_TOLD = "after-terminal-frame-before-told"
    AFTER_SWEPT_FRAME_BEFORE_TOLD = "after-swept-frame-before-told"


class _Armed:
    """Where this process looks for the files that have it die."""

    folder: Path | None = None
    service: str = ""


def arm(folder: Path | None, service: str) -> None:
    """Have this process die at the places that files in a folder name; None: at none."""
    _Armed.folder, _Armed.service = folder, service


def reached(place: Failpoint) -> None:
    """Die here if a test has said so."""
    if _Armed.folder is not None:
        _die(_Armed.folder / place, _Armed.service)


def _die(file: Path, service: str) -> None:
    try:
        meant = file.read_text().strip()
        if meant in {"", service}:
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    except FileNotFoundError:  # it is for no one, or somebody else was first
        return
