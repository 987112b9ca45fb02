# SPDX-License-Identifier: GPL-2.0-or-later
"""The threads that works run in."""

from __future__ import annotations

import threading
import time

from agent.apply.worker_pool import WorkerPool


def test_threads_of_a_crew_end_with_the_last_work() -> None:
    pool = WorkerPool(4)
    for _ in range(3):
        ended = [threading.Event() for _ in range(40)]
        for event in ended:
            pool.submit(event.set)
        assert all(event.wait(10) for event in ended)
        deadline = time.monotonic() + 10
        while any(thread.name.startswith("apply") for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
