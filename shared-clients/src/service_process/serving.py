"""Serving an app until the process is asked to stop, and stopping in an order that loses nothing.

The stop has four steps within `drain_seconds`: the app drains (readiness turns false, open streams end), no new request
is accepted, requests in progress finish, and the app's lifespan closes. A second request to stop ends all of this at
once. `serve` works inside a running loop, so one process can serve several apps under one `Stop`.
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
"""Longer than our clients keep an idle connection, so that the client closes it first."""


type Listener = socket.socket
"""A socket that listens already; see `bind`."""


class PortTaken(Permanent):
    """Another program listens on the port already."""


class Stop:
    """Whether the process was asked to stop (`requested`), and asked again to stop at once (`forced`)."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()

    def request(self) -> None:
        """Ask the process to stop; a second call forces it."""
        if self.requested.is_set():
            self.forced.set()
        self.requested.set()


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn SIGTERM and SIGINT into a `Stop`, and restore their handlers afterwards.

    Enter it once in a process, in the main thread, inside the loop.
    """
    stop = Stop()
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.request)
    try:
        yield stop
    finally:
        for number, receiver in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, receiver)


def bind(host: str, port: int) -> Listener:
    """Return a socket that listens already, so that clients may connect before `serve` begins.

    Raises:
        PortTaken: another program has the port.
        Permanent: this machine has no such address, or this user may not use the port.
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
    sockets: Sequence[Listener] | None = None,
    stop: Stop | None = None,
    drain_seconds: float = 10.0,
) -> None:
    """Open the app's lifespan, serve until asked to stop, drain, and return when all is closed.

    Args:
        app: made by `web.create_app`.
        host: address to listen on.
        port: port to listen on.
        draining: called once when the stop begins, usually `web.draining(app).set`.
        sockets: sockets that listen already (see `bind`), instead of host and port.
        stop: shared by several servers of one process; by default the signals of this process ask for the stop.
        drain_seconds: from the request to stop to the end; work that goes on after that is cancelled.

    Raises:
        PortTaken: see `bind`. Errors of the lifespan are raised too.
    """
    listeners = list(sockets) if sockets is not None else [bind(host, port)]
    server = _Server(_configuration(app, drain_seconds))
    with contextlib.nullcontext(stop) if stop else stop_signals() as stopping:
        try:
            async with asyncio.timeout(None) as limit:
                ending = asyncio.create_task(_end(server, stopping, draining, limit, drain_seconds=drain_seconds))
                try:
                    async with app.router.lifespan_context(app):
                        await server.serve(listeners)
                        await _wait_for_cut_requests(server)
                finally:
                    ending.cancel()
        except TimeoutError:
            if not limit.expired():
                raise
            log.warning("stopped_before_closed", drain_seconds=drain_seconds, forced=stopping.forced.is_set())
        finally:
            for listener in listeners:
                listener.close()


def run(main: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run a process on uvloop; an `OutsideError` ends it with its message and status 1, without a traceback."""
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
    """Wait for the request to stop, and stop; an app that does not serve yet is cancelled at once."""
    clock = asyncio.get_running_loop().time
    await stop.requested.wait()
    draining()
    limit.reschedule(clock() + (drain_seconds if server.started else 0))
    server.should_exit = True
    await stop.forced.wait()
    server.force_exit = True
    for task in server.server_state.tasks:
        task.cancel()
    if not limit.expired():
        limit.reschedule(clock())


async def _wait_for_cut_requests(server: uvicorn.Server) -> None:
    """Wait for cancelled requests to unwind before the lifespan closes the resources that they use."""
    if tasks := server.server_state.tasks:
        await asyncio.wait(tasks, timeout=1)
