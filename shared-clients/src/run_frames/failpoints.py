"""The failpoints of runs' streams, each named after the last finished step and the next one."""

from enum import StrEnum


class Failpoint(StrEnum):
    AFTER_FRAME_BEFORE_RENEW = "after-frame-before-renew"
