"""Modules of this repository as processes of their own, for as long as a context is open."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from local_backends.server import Server

ROOT: Final = Path(__file__).parents[1]


@asynccontextmanager
async def child(folder: Path, words: Sequence[str], port: int) -> AsyncGenerator[Server]:
    """Run a module that listens on a port of this machine.

    Args:
        folder: of its log.
        words: the module, and what it is told.
        port: taken for its address; it serves once somebody can connect.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    program = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", *words]
    server = Server(f"http://127.0.0.1:{port}", program, folder, is_ready=answers, parent_death_signal="KILL")
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
