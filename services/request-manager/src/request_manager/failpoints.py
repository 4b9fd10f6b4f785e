"""The failpoints of request-manager, each named after the last finished step and the next one."""

from enum import StrEnum


class Failpoint(StrEnum):
    AFTER_ACCEPT_BEFORE_HAND_OVER = "after-accept-before-hand-over"
    AFTER_ACCEPT_BEFORE_ANSWER = "after-accept-before-answer"
    AFTER_CANCEL_BEFORE_ANSWER = "after-cancel-before-answer"
    AFTER_SETTLE_BEFORE_COMMIT = "after-settle-before-commit"
