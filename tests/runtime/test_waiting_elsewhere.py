# SPDX-License-Identifier: GPL-2.0-or-later
"""What containers wait for where the engine is another machine's."""

from __future__ import annotations

import time

import pytest

from agent.model.resources import Desired
from agent.observe.waiting import waiting_elsewhere
from agent.uci.decode import decode
from agent.uci.syntax import parse

IMAGE = "config container 'web'\n\toption image 'alpine'\n"


def desired(options: str) -> Desired:
    return decode({"containers": parse(IMAGE + options, package="containers", path="x")}, paths={}).desired


@pytest.mark.parametrize(
    "option",
    [
        "list wait_for 'mount:/nowhere'",
        "list wait_for 'file:/nowhere'",
        "list wait_for 'interface:nothere'",
        "list wait_for 'device:/dev/nothere'",
        "list device '/dev/nothere'",
        "list volume '/nowhere:/data'",
        "list wait_for 'clock'",
    ],
)
def test_paths_devices_and_interfaces_of_this_machine_say_nothing(option: str) -> None:
    assert waiting_elsewhere(desired(f"\t{option}\n"), now=time.time()) == {}


def test_the_clock_is_asked_for_here_too() -> None:
    found = waiting_elsewhere(desired("\tlist wait_for 'clock'\n"), now=0)
    assert found["container:web"].reason == "the clock is not set"


@pytest.mark.parametrize("option", ["list device 'usb:0403:6001'", "list wait_for 'device:usb:0403:6001'"])
def test_a_usb_name_holds_since_nobody_can_look_for_it_there(option: str) -> None:
    found = waiting_elsewhere(desired(f"\t{option}\n"), now=time.time())
    assert "usb:0403:6001 can be found on this machine only" in found["container:web"].reason
