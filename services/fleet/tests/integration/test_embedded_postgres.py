"""The embedded PostgreSQL through everything that can happen to it and to the process that owns it."""

import asyncio
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import asyncpg
import psutil
import pytest

from local_backends import embedded
from local_backends.embedded import EmbeddedPostgres
from local_backends.postgres_binaries import postgres_binaries
from shared_clients.errors import Permanent

OWNER = """
import asyncio, pathlib, signal
from local_backends.embedded import EmbeddedPostgres
async def main():
    server = EmbeddedPostgres(pathlib.Path(%r))
    print(await server.start(), flush=True)
    print(server.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""

FORGETFUL_SETPRIV = """#!/bin/sh
shift 2
exec %s "$@"
"""


@contextmanager
def another_process(folder: Path, path: str = os.environ["PATH"]) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """A process that runs the server of a folder; gives it, the server's address and the server's pid."""
    command = [sys.executable, "-c", OWNER % str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PATH": path}) as owner:
        assert owner.stdout
        try:
            yield owner, owner.stdout.readline().strip(), int(owner.stdout.readline())
        finally:
            owner.kill()


def started(command: list[str], descriptor: int) -> subprocess.Popen[str]:
    return subprocess.Popen(command, pass_fds=(descriptor,), stderr=subprocess.PIPE, text=True)


def copied(made: Path, folder: Path) -> Path:
    folder.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", str(made), str(folder)], check=True)  # owners too
    return folder


async def ask(url: str, *statements: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return list(await connection.fetch(statements[-1]))
    finally:
        await connection.close()


def ended(pid: int, seconds: float = 10.0) -> bool:
    try:
        psutil.Process(pid).wait(seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose data are made and whose server has ended: tests work on copies, which saves them initdb."""
    folder = tmp_path_factory.mktemp("made") / "postgres"
    with another_process(folder) as (owner, _, pid):
        owner.kill()
        assert ended(pid)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return copied(made, tmp_path / "postgres")


async def test_rows_and_vectors_are_there_after_a_second_start(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    url = await server.start()
    await ask(url, "CREATE EXTENSION vector", "CREATE TABLE kept AS SELECT '[1,2]'::vector AS v", "SELECT 1")
    await server.stop()
    [row] = await ask(await server.start(), "SELECT v <-> '[4,6]' AS distance FROM kept")
    await server.stop()
    assert row["distance"] == 5


async def test_second_start_takes_under_a_second(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    took = []
    for _ in range(5):  # the best of a few: the machine may be busy
        began = monotonic()
        await server.start()
        took.append(monotonic() - began)
        await server.stop()
    assert min(took) < 1


async def test_nobody_else_gets_in(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    url = await server.start()
    [row] = await ask(url, "SELECT current_setting('listen_addresses') AS addresses")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder / "data", folder / "data" / ".s.PGSQL.5432")]
    await server.stop()
    assert row["addresses"] == ""
    assert modes == [0o700, 0o700]


STRANGER = """
import os, socket, sys
user, *pids = map(int, sys.argv[1:])
os.setgroups([]), os.setgid(user), os.setuid(user)
found = []
for pid in pids:
    for name in ("environ", "mem", "maps"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                found += [name] if file.read(1) else []
        except OSError:
            pass
    for way in ("cwd", *(f"fd/{number}" for number in range(64))):
        try:
            found += os.listdir(f"/proc/{pid}/{way}")
        except OSError:
            pass
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"/proc/{pid}/{way}/.s.PGSQL.5432")
                found += ["connected"]
        except OSError:
            pass
print(*found)
"""
"""Looks through the kernel's files of some processes, as another user, for a way into the data or to the socket."""


def ways_in(user: int, processes: list[psutil.Process]) -> set[str]:
    command = [sys.executable, "-c", STRANGER, str(user), *(str(process.pid) for process in processes)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of other users")
@pytest.mark.parametrize("earlier", [False, True], ids=["fresh data", "data of an earlier version"])
async def test_process_of_another_user_finds_no_way_in_by_proc(folder: Path, earlier: bool) -> None:
    if earlier:
        await asyncio.to_thread(subprocess.run, ["chown", "-R", "nobody:", str(folder / "data")], check=True)
    server = EmbeddedPostgres(folder)
    await server.start()
    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    (owner,) = {process.uids().real for process in processes}
    assert ways_in(owner, processes) >= {"connected", "PG_VERSION", "maps"}, "the stranger would find them"
    for name in ("nobody", "daemon"):
        assert ways_in(pwd.getpwnam(name).pw_uid, processes) == set()
    told = [process.cmdline() for process in processes] + [process.environ() for process in processes]
    await server.stop()
    with pytest.raises(KeyError):
        pwd.getpwuid(owner)
    assert "password" not in str(told).lower()


async def test_folders_are_made_for_us_alone(tmp_path: Path) -> None:
    folder = tmp_path / "home" / ".flotilla" / "postgres"
    server = EmbeddedPostgres(folder)
    await server.start()
    await server.stop()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.parents[:2])} == {0o700}


async def test_killed_server_comes_back_with_every_commit(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    url = await server.start()
    await ask(url, "CREATE TABLE kept (n int)", "INSERT INTO kept SELECT generate_series(1, 3000)", "SELECT 1")
    assert server.pid
    os.kill(server.pid, signal.SIGKILL)
    assert await server.exited() == -signal.SIGKILL
    await server.stop()
    [row] = await ask(await server.start(), "SELECT count(*) FROM kept")
    await server.stop()
    assert row["count"] == 3000


async def test_server_dies_with_its_killed_owner_and_keeps_every_commit(folder: Path) -> None:
    with another_process(folder) as (owner, url, pid):
        await ask(url, "CREATE TABLE kept (n int)", "INSERT INTO kept SELECT generate_series(1, 3000)", "SELECT 1")
        owner.kill()
        assert ended(pid) or sys.platform != "linux"  # elsewhere the next start ends it
    server = EmbeddedPostgres(folder)
    [row] = await ask(await server.start(), "SELECT count(*) FROM kept")
    await server.stop()
    assert row["count"] == 3000


async def test_server_that_outlived_its_owner_is_ended_and_replaced(folder: Path, tmp_path: Path) -> None:
    forgetful = tmp_path / "bin" / "setpriv"  # leaves out --pdeathsig, as a system without it
    forgetful.parent.mkdir()
    forgetful.write_text(FORGETFUL_SETPRIV % shutil.which("setpriv"))
    forgetful.chmod(0o755)
    with another_process(folder, f"{forgetful.parent}:{os.environ['PATH']}") as (owner, url, pid):
        await ask(url, "CREATE TABLE kept AS SELECT 1", "SELECT 1")
        owner.kill()
        owner.wait()
        assert await ask(url, "SELECT 1")
        server = EmbeddedPostgres(folder)
        await ask(await server.start(), "SELECT * FROM kept")
        assert ended(pid, 0.1)
        assert server.pid != pid
        await server.stop()


async def test_folder_in_use_is_refused_and_its_server_goes_on(folder: Path) -> None:
    with another_process(folder) as (owner, url, _):
        with pytest.raises(Permanent, match=rf"in use by process {owner.pid}: stop that one, or set FLOTILLA_HOME"):
            await EmbeddedPostgres(folder).start()
        assert await ask(url, "SELECT 1")


async def test_stale_pid_file_that_names_a_living_stranger_is_no_obstacle(folder: Path) -> None:
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        (folder / "data" / name).write_text(f"{os.getpid()}\n{folder / 'data'}\n1\n5432\n\n\n")
    server = EmbeddedPostgres(folder)
    assert await ask(await server.start(), "SELECT 1")
    await server.stop()


async def test_server_started_by_hand_is_left_alone(folder: Path) -> None:
    data = folder / "data"
    descriptor = os.open(data, os.O_RDONLY)
    inside = embedded._inside(data, descriptor)
    words = ["-D", inside, "-k", inside, "-c", "listen_addresses="]
    command = [*embedded._as_owner(data), str(postgres_binaries() / "postgres"), *words]
    with started(command, descriptor) as by_hand:
        assert by_hand.stderr
        assert any("ready to accept" in line for line in by_hand.stderr)
        with pytest.raises(Permanent, match=f"stop process {by_hand.pid}"):
            await EmbeddedPostgres(folder).start()
        assert by_hand.poll() is None
        by_hand.send_signal(signal.SIGINT)
        by_hand.stderr.read()
    os.close(descriptor)


async def test_half_made_data_are_made_again(tmp_path: Path) -> None:
    (tmp_path / "data.new").mkdir()
    (tmp_path / "data.new" / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(tmp_path)
    assert await ask(await server.start(), "SELECT 1")
    await server.stop()


async def test_path_longer_than_a_socket_address_works(made: Path, tmp_path: Path) -> None:
    server = EmbeddedPostgres(copied(made, tmp_path / ("deep" * 20) / ("deeper" * 10)))
    assert await ask(await server.start(), "SELECT 1")
    assert await ask(EmbeddedPostgres(server.folder).url(), "SELECT 1"), "as another process would"
    link = Path(server.url().partition("host=")[2].partition("&")[0].replace("%2F", "/"))
    await server.stop()
    assert not link.parent.exists()


def too_little_space(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1, 1))


def older_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data" / "PG_VERSION").write_text("17\n")


def broken_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data" / "postgresql.conf").write_text("no such setting")


@pytest.mark.parametrize(
    ("harm", "advice"),
    [
        (too_little_space, "is full: free 200 MB there, or set FLOTILLA_HOME"),
        (older_data, "was made by PostgreSQL 17, this is 18: move that folder away"),
        (broken_settings, r"ended at once; .*contains errors.*server\.log"),
    ],
)
async def test_what_cannot_be_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path, pytest.MonkeyPatch], None], advice: str
) -> None:
    harm(folder, monkeypatch)
    with pytest.raises(Permanent, match=advice):
        await EmbeddedPostgres(folder).start()
