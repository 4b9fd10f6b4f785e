"""The frames of runs in transit: agent-service writes the log of each run in Redis, and any replica can follow it.

`shared_models.frames` defines a frame. The log is a convenience: a run goes on without it, and the durable row of the
run ends the stream of a follower whose log is missing or silent.
"""

from run_frames.log import append_terminal
from run_frames.reader import FrameReader
from run_frames.writer import FrameWriter

__all__ = ["FrameReader", "FrameWriter", "append_terminal"]
