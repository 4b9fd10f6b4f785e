"""PostgreSQL without an installation: the binaries of a wheel, run as a child of this process.

`flotilla up` and the tests start it before anything opens a connection, and stop it last. A folder has one owner
process and one server; the server dies with its owner (by kill -9 too) without losing a commit.

The server listens on a Unix socket inside the data folder, mode 0700, and on no network. PostgreSQL refuses to run as
root, so under root the server runs as a user of its own (`server_user`). That user may not enter the folders above the
data folder, such as a home directory or a `.flotilla` with mode 0700, and their modes are not changed. Only the data
folder belongs to that user, and the server gets it as an open descriptor: `/proc/self/fd/N` leads there without passing
through the folders above. The binaries need a public path; where the virtual environment is hidden, they are copied to
/var/cache.

The same descriptor carries a lock (flock) that lives as long as any process of the server. A process that holds the
lock knows that no server runs here, whatever a pid file says: its pid may be reused, or a zombie's.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import asyncpg
import psutil

from local_backends import server_user
from local_backends.postgres_binaries import MAJOR_VERSION, postgres_binaries
from shared_clients.errors import Permanent

SUPERUSER = "postgres"  # made by initdb; for migrations and roles, never for serving

_MAX_FOLDER_BYTES = 80  # bytes of the socket's folder; a whole path may have 103 (macOS) or 107 (Linux)
_MIN_FREE_BYTES = 100 * 2**20
_READY_SECONDS = 60.0
_STOP_SECONDS = 8.0
_POLL_SECONDS = 0.02


class EmbeddedPostgres:
    """One PostgreSQL in one folder, which is made if it is missing.

    Start it from the main thread: Linux counts a child orphaned when the thread that started it ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._data = self.folder / "data"
        self._log = self.folder / "server.log"
        self._address = self._data
        self._address_file = self.folder / "address"
        self._server: subprocess.Popen[bytes] | None = None
        self._open_descriptors: list[int] = []

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server else None

    def url(self, *, database: str = "flotilla", user: str = SUPERUSER) -> str:
        """Return SQLAlchemy's address of a database; every process of this user may use it while the server runs."""
        address = str(self._address) if self._server else self._published_address()
        return f"postgresql+asyncpg://{user}@/{database}?{urlencode({'host': address, 'port': 5432})}"

    async def start(self) -> str:
        """Start the server, and return the address of the database `flotilla`.

        Raises:
            Permanent: it cannot start; the message says what to do.
        """
        try:
            await self._lock_folder()
            binaries = postgres_binaries()
            if not self._data.exists():
                await self._initialise(binaries)
            self._launch(binaries, await self._lock_data())
            await self._until_ready()
        except (OSError, asyncpg.PostgresError) as error:
            await self.stop()
            raise Permanent(_with_remedy(str(error), self.folder, self._log)) from error
        except BaseException:
            await self.stop()
            raise
        return self.url()

    async def stop(self, *, keep_address: bool = False) -> None:
        """End the server with all its data on disk; without a running server, do nothing.

        Args:
            keep_address: let the next start serve at the same address.
        """
        if self._server:
            self._server.send_signal(signal.SIGINT)
            try:
                await asyncio.wait_for(self.exited(), _STOP_SECONDS)
            except TimeoutError:
                self._server.send_signal(signal.SIGQUIT)  # the next start recovers from its log
                await self.exited()
            self._server = None
        while self._open_descriptors:
            os.close(self._open_descriptors.pop())
        if self._address != self._data and not keep_address:
            self._address_file.unlink(missing_ok=True)
            shutil.rmtree(self._address.parent, ignore_errors=True)
            self._address = self._data

    def _published_address(self) -> str:
        """Return the address of the server that another process runs here; a long path has a shorter one."""
        try:
            return self._address_file.read_text()
        except FileNotFoundError:
            return str(self._address)

    async def exited(self) -> int:
        """Wait until the server has ended, and return its exit status."""
        assert self._server, "it was not started"
        return await asyncio.to_thread(self._server.wait)

    async def _lock_folder(self) -> None:
        for missing in reversed([path for path in (self.folder, *self.folder.parents) if not path.exists()]):
            missing.mkdir(mode=0o700)
        if shutil.disk_usage(self.folder).free < _MIN_FREE_BYTES:
            raise Permanent(_with_remedy("No space left on device", self.folder, self._log))
        owner = self._keep_open(os.open(self.folder / "owner", os.O_RDWR | os.O_CREAT, 0o600))
        if not await _locked(owner):
            pid = os.read(owner, 20).decode()
            raise Permanent(f"{self.folder} is in use by process {pid}: stop that one, or set FLOTILLA_HOME elsewhere")
        os.truncate(owner, 0)
        os.write(owner, str(os.getpid()).encode())
        if self._log.exists():
            self._log.replace(self.folder / "server.log.1")

    async def _initialise(self, binaries: Path) -> None:
        """Make the data in a folder beside its final one, and move it there: a half-made folder is never used."""
        unfinished = self.folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        server_user.lend_to_initdb(unfinished)
        descriptor = self._keep_open(os.open(unfinished, os.O_RDONLY))
        inside = _inside(unfinished, descriptor)
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        self._spawn(
            unfinished, descriptor, [str(binaries / "initdb"), "-D", inside, "-U", SUPERUSER, "--auth=trust", *locale]
        )
        if await self.exited():
            raise Permanent(_with_remedy("initdb failed", self.folder, self._log))
        server_user.take_from_initdb(unfinished)
        unfinished.rename(self._data)

    async def _lock_data(self) -> int:
        """Open the data folder and lock it; a server that outlived its owner is ended first."""
        made_by = (self._data / "PG_VERSION").read_text().strip()
        if made_by != MAJOR_VERSION:
            raise Permanent(
                f"{self._data} was made by PostgreSQL {made_by}, this is {MAJOR_VERSION}: move that folder away"
            )
        descriptor = self._keep_open(os.open(self._data, os.O_RDONLY))
        for sign, patience in ((signal.SIGINT, _STOP_SECONDS), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 3.0)):
            if await _locked(descriptor):
                break
            if leftover := _server_of(self._data):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(leftover, sign)
            await _locked(descriptor, patience)
        if leftover := _server_of(self._data):
            raise Permanent(f"A PostgreSQL that Flotilla cannot end runs on {self._data}: stop process {leftover}")
        if not await _locked(descriptor):
            raise Permanent(
                f"A process that cannot be seen from here uses {self._data}: "
                "if another container shares that folder, stop that container"
            )
        for stale in ("postmaster.pid", ".s.PGSQL.5432.lock"):  # a reused pid in them would prevent the start
            (self._data / stale).unlink(missing_ok=True)
        server_user.take_from_shared_user(self._data)
        return descriptor

    def _launch(self, binaries: Path, descriptor: int) -> None:
        if self._address == self._data and len(os.fsencode(self._data)) > _MAX_FOLDER_BYTES:
            self._address = Path(tempfile.mkdtemp(prefix="flotilla-")) / "postgres"
            self._address.symlink_to(self._data)
            self._address_file.write_text(str(self._address))
        inside = _inside(self._data, descriptor)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": inside,
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "log_checkpoints": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._spawn(self._data, descriptor, [str(binaries / "postgres"), "-D", inside, *options])

    def _spawn(self, data: Path, descriptor: int, command: Sequence[str]) -> None:
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(  # noqa: S603 - the wheel's binaries, our arguments
                [*_as_owner(data), *command],
                pass_fds=(descriptor,),
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},  # without our secrets
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C goes to us alone: the server ends after its clients
            )

    async def _until_ready(self) -> None:
        assert self._server
        for _ in range(round(_READY_SECONDS / _POLL_SECONDS)):
            if self._server.poll() is not None:
                raise Permanent(_with_remedy("it ended at once", self.folder, self._log))
            with contextlib.suppress(OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
                return await _make_database(self._address)
            await asyncio.sleep(_POLL_SECONDS)
        raise Permanent(_with_remedy(f"it did not answer within {_READY_SECONDS:.0f} s", self.folder, self._log))

    def _keep_open(self, descriptor: int) -> int:
        self._open_descriptors.append(descriptor)
        return descriptor


def parent_death_command(signal_name: str) -> list[str]:
    """Return the prefix of a command to which Linux sends this signal when its parent thread ends."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", signal_name, "--"] if setpriv else []


def _as_owner(data: Path) -> list[str]:
    if os.geteuid():
        return parent_death_command("INT")
    owner = data.stat()
    if not owner.st_uid:
        raise Permanent(f"{data} belongs to root, who may not run PostgreSQL: chown -R nobody: {data}")
    if not (words := parent_death_command("INT")):
        raise Permanent("As root, PostgreSQL is started by `setpriv`: install util-linux, or use another account")
    return [*words[:-1], f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups", "--"]


def _inside(folder: Path, descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}" if sys.platform == "linux" else str(folder)


async def _locked(descriptor: int, seconds: float = 0.0) -> bool:
    for _ in range(1 + round(seconds / _POLL_SECONDS)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return True
    return False


def _server_of(data: Path) -> int | None:
    """Return the process in the pid file, if it is alive and a PostgreSQL in this very folder."""
    try:
        pid = int((data / "postmaster.pid").read_text().partition("\n")[0])
        process = psutil.Process(pid)
        if process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE or not data.samefile(process.cwd()):
            return None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None
    except psutil.AccessDenied:  # root without CAP_SYS_PTRACE cannot read it: the program's name decides
        return pid
    return pid


def _with_remedy(reason: str, folder: Path, log_file: Path) -> str:
    """Return why PostgreSQL cannot run, with the causes in its log and what to do."""
    with contextlib.suppress(OSError):
        log = log_file.read_text(errors="replace").splitlines()[-40:]
        causes = [line for line in log if any(word in line for word in ("FATAL", "PANIC", "error", "setpriv"))]
        reason = "; ".join([reason, *(line for line in causes[-3:] if "is starting up" not in line)])
    if "No space left" in reason:
        return f"The disk of {folder} is full: free 200 MB there, or set FLOTILLA_HOME to a folder elsewhere"
    if "Permission denied" in reason:
        reason += f"; if another user made that folder, give it back with: sudo chown -R $USER {folder}"
    return f"PostgreSQL cannot run in {folder}: {reason} (log: {log_file})"


async def _make_database(address: Path) -> None:
    connection = await asyncpg.connect(host=str(address), port=5432, user=SUPERUSER, database="postgres")
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = 'flotilla'"):
            await connection.execute("CREATE DATABASE flotilla")
    finally:
        await connection.close()
