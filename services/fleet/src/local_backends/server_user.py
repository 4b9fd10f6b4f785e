"""The user as whom the embedded PostgreSQL runs when root starts it: an id that no account and no process has.

The kernel lets a process into `/proc/<pid>/fd` and `/proc/<pid>/cwd` of every process of the same user, and these lead
into the data folder past the folders above it. `nobody` is the user of many programs, so each of them could read the
data and connect as a superuser. An id of its own has no other process.

`initdb` looks up the name of its user, so it alone runs as `nobody`, before there are any data. Its files are copied:
a process of `nobody` that opened one of them has only a file that is thrown away.
"""

import os
import pwd
import random
import shutil
from pathlib import Path
from typing import Final

import psutil

from shared_clients.errors import Permanent

IDS: Final = range(61_184, 65_520)
"""The ids that systemd sets apart for users without an account; containers with 65,536 ids have them too."""


def lend_to_initdb(data: Path) -> None:
    """Under root, give an empty folder to the user of initdb; otherwise do nothing."""
    if os.geteuid() == 0:
        _give(data, *_nobody())


def take_from_initdb(data: Path) -> None:
    """Under root, replace a folder by a copy of it that belongs to an unused id; otherwise do nothing."""
    if os.geteuid():
        return
    made_here = data.with_name(f"{data.name}.copy")
    shutil.rmtree(made_here, ignore_errors=True)
    made_here.mkdir(mode=0o700)
    shutil.copytree(data, made_here, symlinks=True, dirs_exist_ok=True)
    _give_all(made_here, unused_id())
    shutil.rmtree(data)
    made_here.rename(data)


def take_from_shared_user(data: Path) -> None:
    """Under root, give data of `nobody` to an unused id; an earlier version of Flotilla made them so."""
    if os.geteuid() == 0 and data.stat().st_uid == _nobody()[0]:
        _give_all(data, unused_id())


def unused_id() -> int:
    """Return an id that no account and no process of this machine has.

    Raises:
        Permanent: there is none.
    """
    accounts = {entry.pw_uid for entry in pwd.getpwall()}
    running = {process.info["uids"].real for process in psutil.process_iter(["uids"]) if process.info["uids"]}
    free = [number for number in IDS if number not in accounts | running]
    if not free:
        raise Permanent(f"every user id from {IDS.start} to {IDS.stop - 1} is in use, and PostgreSQL needs one")
    return random.choice(free)  # noqa: S311 - no secret: two servers rarely get the same one


def _give_all(folder: Path, user: int) -> None:
    for path in (folder, *folder.rglob("*")):
        _give(path, user, user)


def _give(path: Path, user: int, group: int) -> None:
    os.chown(path, user, group, follow_symlinks=False)


def _nobody() -> tuple[int, int]:
    account = pwd.getpwnam("nobody")
    return account.pw_uid, account.pw_gid
