# SPDX-License-Identifier: GPL-2.0-or-later
"""`diff` says "edited" and "drift" where that is so, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.plan.container.bodies import container_body
from agent.plan.container.difference import differences
from tests.support.plans import a_world, read

HEAD = "config container 'web'\n\toption image 'nginx'\n"

# what was applied, what runs, what is declared -> option and whether it is edited, drift or both
CASES: dict[str, tuple[str, str, str, list[tuple[str, str]]]] = {
    "nothing": ("memory '64m'", "memory '64m'", "memory '64m'", []),
    "the section": ("memory '64m'", "memory '64m'", "memory '128m'", [("memory", "edited")]),
    "the engine": ("memory '64m'", "memory '32m'", "memory '64m'", [("memory", "drift")]),
    "both": ("memory '64m'", "memory '32m'", "memory '128m'", [("memory", "edited drift")]),
    "a variable": ("env 'A=1'", "env 'A=1'", "env 'A=2'", [("env", "edited")]),
    "a variable both": ("env 'A=1'", "env 'A=3'", "env 'A=2'", [("env", "edited drift")]),
    "an image": ("image 'nginx'", "image 'nginx'", "image 'caddy'", [("image", "edited")]),
    "a command": ("command 'a'", "command 'a'", "command 'b'", [("command", "edited")]),
    "taken away": ("user 'x'", "user 'x'", "", [("user", "edited")]),
}


def section(option: str) -> str:
    kind = "list" if option.startswith("env") else "option"
    head = "config container 'web'\n" if option.startswith("image") else HEAD
    return head + (f"\t{kind} {option}\n" if option else "")


@pytest.mark.parametrize(("applied", "runs", "declared", "want"), CASES.values(), ids=CASES.keys())
def test_edited_and_drift_are_told_where_they_are_true(
    applied: str, runs: str, declared: str, want: list[tuple[str, str]]
) -> None:
    world = a_world(section(applied), section(declared))
    made = read(section(runs)).containers[0]
    inspect: dict[str, Any] = container_body(made, labels={}, image=made.spec.image, api=(1, 41))
    inspect = {
        "Config": {key: value for key, value in inspect.items() if key != "HostConfig"},
        "HostConfig": inspect["HostConfig"],
        "Image": f"sha256:{made.spec.image}",
        "NetworkSettings": {"Networks": {"bridge": {"EndpointID": "e"}}},
        "State": {"Running": True},
    }
    container = world.desired.containers[0]
    record = replace(world.records["web"], image_id="sha256:nginx")
    image_id = f"sha256:{container.spec.image}"
    rows = differences(container, record, inspect, names={}, image_id=image_id)
    told = [(row.field, " ".join(["edited"] * row.edited + ["drift"] * row.drifted)) for row in rows]
    assert told == want
