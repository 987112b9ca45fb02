# SPDX-License-Identifier: GPL-2.0-or-later
"""What is made of a section stays the same over our versions: the spec hash, the engine's bodies, the changes.

A hash that becomes another one makes every container on every router anew. `container-bodies.jsonl` holds random
valid sections (of the strategies in `tests/uci/test_encode.py`) with their hashes, and numbers of lines of
`spec-hashes.jsonl`. Lines may be added, never changed: what they record is in use.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from agent.model.container_table import ChangeLevel
from agent.model.identity import canonical, masked
from agent.model.resources import Container, ContainerSpec
from agent.plan.container.bodies import container_body, extra_endpoints, read_spec, update_body
from agent.plan.container.changes import LEVELS, classify
from agent.plan.draft import with_hashes
from agent.uci.decode import decode
from agent.uci.syntax import parse

DATA = Path(__file__).parents[1] / "data"
RECORDED = [json.loads(line) for line in (DATA / "container-bodies.jsonl").read_text().split("\n") if line]
KNOWN = [json.loads(line) for line in (DATA / "spec-hashes.jsonl").read_text().split("\n") if line]
OLD_FIELDS = RECORDED[0]["fields"]  # of the day of recording: a new one is not read back in old lines
PLUGGED = (("usb:0403:6001", "/dev/ttyUSB0"),)


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def text_of(line: dict[str, Any]) -> str:
    if "n" in line:
        return str(KNOWN[line["n"]]["text"]).replace("@NETS\n", KNOWN[0]["NETS"])
    return str(RECORDED[0]["around"]) + str(line["text"])


def read(text: str) -> tuple[Container, str]:
    desired = with_hashes(decode({"containers": parse(text, package="containers")}, paths={}).desired)
    found = next(container for container in desired.containers if container.section == "web")
    return found, desired.spec_hashes["container:web"]


def bodies(container: Container) -> list[Any]:
    """What the engine is sent of a container, old engines and new ones, and what we read of its answer."""
    from dataclasses import replace

    container = replace(container, plugged=PLUGGED)
    made = [
        container_body(container, labels={"a": "b"}, image="x", api=api, carry={"/v": "old"})
        for api in ((1, 41), (1, 47))
    ]
    in_place = [name for name in OLD_FIELDS if LEVELS[name] is ChangeLevel.UPDATE]
    updates = [update_body(container.spec, [name]) for name in in_place]
    config = {key: value for key, value in made[0].items() if key not in {"HostConfig", "NetworkingConfig"}}
    shown = {"Config": config, "HostConfig": made[0]["HostConfig"]}
    seen = canonical(read_spec(shown, {}))
    return [*made, extra_endpoints(container), updates, {key: seen[key] for key in OLD_FIELDS if key in seen}]


def changes(container: Container) -> list[tuple[str, str]]:
    """From a container with nothing but its image, and back."""
    spec, bare = (masked(canonical(s)) for s in (container.spec, ContainerSpec(image="other")))
    return [(c.field, str(c.level)) for pair in ((bare, spec), (spec, bare)) for c in classify(*pair)]


def test_the_recording_is_whole() -> None:
    assert len(RECORDED) > 600
    assert set(OLD_FIELDS) <= {field.name for field in fields(ContainerSpec)}


@pytest.mark.parametrize("part", range(8))
def test_recorded_sections_make_what_they_made(part: int) -> None:
    for line in RECORDED[1 + part :: 8]:
        container, spec_hash = read(text_of(line))
        assert spec_hash == line["spec"], text_of(line)
        assert digest(bodies(container)) == line["bodies"], text_of(line)
        assert digest(changes(container)) == line["changes"], text_of(line)
