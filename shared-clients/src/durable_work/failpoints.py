"""The failpoints of durable work, each named after the last finished step and the next one."""

from enum import StrEnum


class Failpoint(StrEnum):
    AFTER_COMMIT_BEFORE_PUBLISH = "after-commit-before-publish"
    AFTER_PUBLISH_BEFORE_MARK = "after-publish-before-mark"
    AFTER_SWEEP_CLAIM_BEFORE_PUBLISH = "after-sweep-claim-before-publish"
    AFTER_EFFECT_BEFORE_COMMIT = "after-effect-before-commit"
    AFTER_COMMIT_BEFORE_ACK = "after-commit-before-ack"
