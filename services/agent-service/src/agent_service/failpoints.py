"""The failpoints of agent-service, each named after the last finished step and the next one."""

from enum import StrEnum


class Failpoint(StrEnum):
    AFTER_CLAIM_BEFORE_START = "after-claim-before-start"
    AFTER_BEGIN_BEFORE_FIRST_STEP = "after-begin-before-first-step"
    AFTER_STEP_BEFORE_JOURNAL = "after-step-before-journal"
    AFTER_JOURNAL_BEFORE_NEXT_STEP = "after-journal-before-next-step"
    AFTER_STOP_BEFORE_END = "after-stop-before-end"
    AFTER_END_BEFORE_COMMIT = "after-end-before-commit"
    AFTER_END_BEFORE_TERMINAL_FRAME = "after-end-before-terminal-frame"
    AFTER_TERMINAL_FRAME_BEFORE_CLEAR = "after-terminal-frame-before-clear"
    AFTER_SWEPT_FRAME_BEFORE_CLEAR = "after-swept-frame-before-clear"
