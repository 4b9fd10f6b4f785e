"""The failpoints of runs' streams, each named for the step that was done and the step that was not."""

from enum import StrEnum


class Failpoint(StrEnum):
    AFTER_FRAME_BEFORE_RENEW = "after-frame-before-renew"
