# SPDX-License-Identifier: GPL-2.0-or-later
"""Equal edits on a real engine: a stated default, or the same in other words, keeps the container."""

from __future__ import annotations

import pytest

from agent.model.identity import spec_hash
from agent.schema.validate import properties
from tests.plan.test_meaning import PAIRS, STATED
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX

BASE = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.2'
"""
# said by BASE, or the engine of the test machine has no image with it
_NOT_HERE = {"stop_timeout", "gate", "entrypoint", "grace", "rollback"}
_ALONE = {"network_mode": "network"}  # one of the two


def web(*lines: str) -> str:
    return BASE + "".join(f"\t{line}\n" for line in lines)


def keeps(box: Box, before: str, after: str) -> None:
    box.apply(before)
    made = box.get("web")
    for text in (after, before):
        assert str(box.apply(text)[0]) == "nothing to do", text
        assert box.get("web").id == made.id


def test_stated_defaults(box: Box) -> None:
    options = [o for o in STATED if o not in _NOT_HERE and o not in _ALONE]
    words = {
        option: "list" if properties("container")[option]["type"] == "array" else "option"
        for option in options
    }
    stated = [f"{words[option]} {option} '{STATED[option][0]}'" for option in options]
    keeps(box, web(), web(*stated))
    keeps(box, web(), web("option network_mode 'bridge'"))


@pytest.mark.parametrize(
    "name", ["tmpfs rw", "tmpfs order", "hosts", "root", "everywhere", "small signals", "a check's defaults"]
)
def test_other_words(box: Box, name: str) -> None:
    one, other = PAIRS[name]
    keeps(box, web(*one), web(*other))


def test_the_hub_by_its_full_name(box: Box) -> None:
    keeps(box, web(), web().replace("IMAGE", f"docker.io/library/{BUSYBOX}"))


def test_a_default_that_this_engine_does_not_have_is_a_change(box: Box) -> None:
    """Made with another log driver by hand, as an engine with settings of its own makes them."""
    box.apply(web("option log_driver 'local'"))
    record = next(r for r in box.reconciler.records.records() if r.kind == "container")
    spec = {name: value for name, value in record.spec.items() if name != "log_driver"}
    box.reconciler.records.change(record.nonce, spec=spec, spec_hash=spec_hash(spec))
    assert str(box.apply(web())[0]) == "nothing to do"
    assert "log_driver local -> json-file" in str(box.apply(web("option log_driver 'json-file'"))[0])
    assert box.get("web").attrs["HostConfig"]["LogConfig"]["Type"] == "json-file"
