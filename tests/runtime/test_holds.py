# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.model.resources import Container, ContainerPolicy, ContainerSpec, Desired
from agent.runtime.holds import Holds

WEB = Container(section="web", name="web", spec=ContainerSpec(image="a", env=(("KEY", "S3CRET"),)))


@pytest.mark.parametrize("text", ["{", "[]", '{"container:web": 1}', '{"container:web": {}}'])
def test_a_broken_file_holds_nothing_and_is_written_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "holds.json"
    path.write_text(text)
    holds = Holds(path)
    assert holds.current(Desired(containers=(WEB,))) == {}
    holds.add(WEB, "stop")
    assert json.loads(path.read_text())["container:web"]["action"] == "stop"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "S3CRET" not in path.read_text()


def test_a_change_of_any_part_of_the_section_ends_the_hold(tmp_path: Path) -> None:
    changed = {
        "name": replace(WEB, name="other"),
        "spec": replace(WEB, spec=ContainerSpec(image="b")),
        "policy": replace(WEB, policy=ContainerPolicy(gate_s=1)),
    }
    for what, container in changed.items():
        holds = Holds(tmp_path / what)
        holds.add(WEB, "stop")
        assert holds.current(Desired(containers=(WEB,))) == {"container:web": "stop"}
        assert holds.current(Desired(containers=(container,))) == {}, what
        assert holds.current(Desired(containers=(WEB,))) == {}, "it does not come back with the section"


def test_a_section_with_a_mistake_keeps_its_hold(tmp_path: Path) -> None:
    holds = Holds(tmp_path / "holds.json")
    holds.add(WEB, "stop")
    assert holds.current(Desired(broken=frozenset({"container:web"}))) == {"container:web": "stop"}


def test_a_start_that_failed_leaves_the_hold_of_the_stop(tmp_path: Path) -> None:
    holds, desired = Holds(tmp_path / "holds.json"), Desired(containers=(WEB,))
    holds.add(WEB, "stop")
    holds.add(WEB, "start")
    assert holds.current(desired) == {}
    holds.take_back(WEB)
    assert holds.current(desired) == {"container:web": "stop"}
    holds.add(WEB, "rename")
    holds.take_back(WEB)
    assert holds.current(desired) == {"container:web": "stop"}
    holds.clear()
    holds.take_back(WEB)
    assert holds.current(desired) == {}
