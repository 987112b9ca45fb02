# SPDX-License-Identifier: GPL-2.0-or-later
"""What systemd is told, as sd_notify(3) has it, and the end that service managers wait for."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.runtime import main
from agent.runtime.loop import PASS_THREAD
from agent.runtime.main import tell_service_manager


@pytest.mark.parametrize("form", ["path", "abstract"])
def test_systemd_is_told_once(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = {"path": str(tmp_path / "notify"), "abstract": f"@{tmp_path}"}[form]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address.replace("@", "\0"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        tell_service_manager()
        assert systemd.recv(100) == b"READY=1"
        assert "NOTIFY_SOCKET" not in os.environ  # a dockerd of ours would speak for us
        systemd.setblocking(False)
        tell_service_manager()
        with pytest.raises(BlockingIOError):
            systemd.recv(100)


def test_a_systemd_that_does_not_listen_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    tell_service_manager()
    assert "systemd was not told" in caplog.text


async def test_the_end_waits_only_a_moment_for_a_thread_that_waits_for_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(main, "_THREADS_S", 0.1)
    answered = threading.Event()
    with ThreadPoolExecutor(thread_name_prefix=PASS_THREAD) as threads:
        threads.submit(answered.wait, 10)
        threads.shutdown(wait=False)
        assert not await main._threads_end()
        answered.set()
        monkeypatch.setattr(main, "_THREADS_S", 5.0)
        assert await main._threads_end()
