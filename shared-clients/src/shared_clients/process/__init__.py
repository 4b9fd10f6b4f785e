"""What a service does as a process: it serves, it runs loops in the background, and it stops when it is asked to."""

from shared_clients.process.loops import Backoff, Loop, Tasks, every
from shared_clients.process.serving import PortTaken, Stop, bind, run, serve, stop_signals

__all__ = ["Backoff", "Loop", "PortTaken", "Stop", "Tasks", "bind", "every", "run", "serve", "stop_signals"]
