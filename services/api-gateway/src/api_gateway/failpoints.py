"""The failpoints of api-gateway, each named for the last step done and the next step."""

from enum import StrEnum


class Failpoint(StrEnum):
    AFTER_ACCEPT_BEFORE_RELAY = "after-accept-before-relay"
    AFTER_FRAME_BEFORE_NEXT_FRAME = "after-frame-before-next-frame"
