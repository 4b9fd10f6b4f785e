"""Every failpoint of the fleet, gathered from the packages that name their own."""

from enum import StrEnum
from typing import Final

from agent_service.failpoints import Failpoint as AgentFailpoint
from api_gateway.failpoints import Failpoint as GatewayFailpoint
from durable_work.failpoints import Failpoint as WorkFailpoint
from request_manager.failpoints import Failpoint as ManagerFailpoint
from run_frames.failpoints import Failpoint as FrameFailpoint

__all__ = [
    "FAILPOINTS",
    "AgentFailpoint",
    "FrameFailpoint",
    "GatewayFailpoint",
    "ManagerFailpoint",
    "WorkFailpoint",
]

FAILPOINTS: Final[dict[str, StrEnum]] = {
    point.name: point
    for points in (WorkFailpoint, FrameFailpoint, GatewayFailpoint, ManagerFailpoint, AgentFailpoint)
    for point in points
}
"""By the member's name, which no two packages share."""
