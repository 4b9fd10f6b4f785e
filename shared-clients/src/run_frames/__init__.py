"""Frames on their way: agent-service writes each run's log in Redis, any replica of any service follows it.

What a frame is says `shared_models.frames`. The log is a convenience: a run goes on without it, and a follower who
finds none, or finds it silent, is ended by the durable row.
"""

from run_frames.log import append_terminal
from run_frames.reader import FrameReader
from run_frames.writer import FrameWriter

__all__ = ["FrameReader", "FrameWriter", "append_terminal"]
