"""The failpoints of api-gateway, each named after the last finished step and the next one."""

from enum import StrEnum


class Failpoint(StrEnum):
    AFTER_ACCEPT_BEFORE_RELAY = "after-accept-before-relay"
    AFTER_FRAME_BEFORE_NEXT_FRAME = "after-frame-before-next-frame"
