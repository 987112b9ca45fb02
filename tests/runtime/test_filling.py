# SPDX-License-Identifier: GPL-2.0-or-later
"""The file that names new volumes which are not complete: what is noted at the same time is all there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent.data.volumes import Volumes
from agent.engine.stream import DockerStream
from tests.support.controller import QuietAgent


def test_volumes_that_are_filled_at_the_same_time_are_all_noted(tmp_path: Path) -> None:
    engine = DockerStream(f"unix://{tmp_path}/none.sock")
    journal, filling = tmp_path / "j", tmp_path / "f"
    made = Volumes(engine, QuietAgent(), instance=lambda: "i", journal=journal, filling=filling)
    marks = [f"{number:016x}" for number in range(24)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(made._note_new, marks, marks))
        assert made._new() == {mark: mark for mark in marks}
        list(threads.map(made._forget_new, marks[1:]))
    assert made._new() == {marks[0]: marks[0]}
    made._forget_new(marks[0])
    assert not filling.exists()
