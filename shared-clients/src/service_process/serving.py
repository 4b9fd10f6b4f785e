"""Serving an app until the process is asked to stop, and stopping in an order that loses nothing.

Asked to stop: the app is told (readiness turns false, open streams end), nothing new is accepted, requests in flight
finish, the app's lifespan closes, all within `drain_seconds`; asked again, at once. Works inside a running loop, so one
process can serve several apps under one `Stop`.
"""

import asyncio
import contextlib
import errno
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Final

import structlog
import uvicorn
import uvloop
from starlette.applications import Starlette

from service_process.connection import BoundedConnection
from shared_clients.errors import OutsideError, Permanent

log = structlog.get_logger()

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
BACKLOG: Final = 2048
KEEP_ALIVE_SECONDS: Final = 30
"""Longer than our clients keep an idle connection, so that they and not we let go of it first."""


class PortTaken(Permanent):
    """Another program listens on the port already."""


class Stop:
    """Whether the process was asked to stop (`asked`), and asked again because that took too long (`forced`)."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.forced = asyncio.Event()

    def ask(self) -> None:
        """Stop; a second call forces it."""
        if self.asked.is_set():
            self.forced.set()
        self.asked.set()


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn SIGTERM and SIGINT into a `Stop`, and put back afterwards whatever received them before.

    To be entered once in a process, in the main thread, inside the loop.
    """
    stop = Stop()
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.ask)
    try:
        yield stop
    finally:
        for number, receiver in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, receiver)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens already, so that clients may connect before `serve` begins.

    Raises:
        PortTaken: somebody else has the port.
        Permanent: this machine has no such address, or the port is not allowed to us.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            msg = f"port {port} on {host} is in use by another program; stop it, or set FLOTILLA_PORT to another port"
            raise PortTaken(msg) from error
        raise Permanent(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    return listener


async def serve(
    app: Starlette,
    *,
    host: str,
    port: int,
    draining: Callable[[], None],
    sockets: Sequence[socket.socket] | None = None,
    stop: Stop | None = None,
    drain_seconds: float = 10.0,
) -> None:
    """Open the app's lifespan, serve until asked to stop, drain, and return when all is closed.

    Args:
        app: made by `web.create_app`.
        host: address to listen on.
        port: port to listen on.
        draining: called once when the stop begins, usually `web.draining(app).set`.
        sockets: listening already (see `bind`), instead of host and port.
        stop: shared by several servers of one process; without it the signals of this process are ours.
        drain_seconds: from being asked to having ended; whatever still goes on then is cancelled.

    Raises:
        PortTaken: see `bind`. What the lifespan raises rises too.
    """
    listeners = list(sockets) if sockets is not None else [bind(host, port)]
    server = _Server(_configuration(app, drain_seconds))
    with contextlib.nullcontext(stop) if stop else stop_signals() as asking:
        try:
            async with asyncio.timeout(None) as limit:
                ending = asyncio.create_task(_end(server, asking, draining, limit, drain_seconds=drain_seconds))
                try:
                    async with app.router.lifespan_context(app):
                        await server.serve(listeners)
                        await _last_words(server)
                finally:
                    ending.cancel()
        except TimeoutError:
            if not limit.expired():
                raise
            log.warning("stopped_before_closed", drain_seconds=drain_seconds, forced=asking.forced.is_set())
        finally:
            for listener in listeners:
                listener.close()


def run(main: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run a process on uvloop; an error of the outside ends it with status 1 and its message, without a traceback."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    except OutsideError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves the signals to `stop_signals`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _configuration(app: Starlette, drain_seconds: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=BoundedConnection,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, int(drain_seconds * 0.75)),
    )


async def _end(
    server: uvicorn.Server, stop: Stop, draining: Callable[[], None], limit: asyncio.Timeout, *, drain_seconds: float
) -> None:
    """Wait for the stop and carry it out; an app that is not serving yet is given up at once."""
    clock = asyncio.get_running_loop().time
    await stop.asked.wait()
    draining()
    limit.reschedule(clock() + (drain_seconds if server.started else 0))
    server.should_exit = True
    await stop.forced.wait()
    server.force_exit = True
    for task in server.server_state.tasks:
        task.cancel()
    if not limit.expired():
        limit.reschedule(clock())


async def _last_words(server: uvicorn.Server) -> None:
    """Let requests that were cut short unwind before what they use is closed."""
    if tasks := server.server_state.tasks:
        await asyncio.wait(tasks, timeout=1)
