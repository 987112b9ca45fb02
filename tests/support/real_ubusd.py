# SPDX-License-Identifier: GPL-2.0-or-later
"""The real ubusd, if one is on PATH."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

UBUSD = shutil.which("ubusd")


class RealUbusd:
    """Same interface as FakeUbusd."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> RealUbusd:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        assert UBUSD is not None
        self._process = await asyncio.create_subprocess_exec(UBUSD, "-s", str(self.path))
        async with asyncio.timeout(5):
            while True:
                try:
                    _, writer = await asyncio.open_unix_connection(str(self.path))
                except OSError:
                    await asyncio.sleep(0.01)
                    continue
                writer.transport.abort()
                return

    async def stop(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
