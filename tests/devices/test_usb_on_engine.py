# SPDX-License-Identifier: GPL-2.0-or-later
"""A container follows its USB stick: to another port, to another number."""

from __future__ import annotations

import asyncio
import threading
import time as real_time
from pathlib import Path
from typing import Any

import pytest

from agent.observe import waiting as devices_module
from agent.observe.waiting import SETTLE_S, UsbDevices
from agent.runtime.loop import Loop
from tests.support.box import Box
from tests.support.usb import UsbBus
from tests.test_running_agent import wait_for

STICK = "0403:6001"
WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.2'
	list device 'usb:0403:6001:/dev/zigbee:rw'
"""


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(box: Box, bus: UsbBus) -> Time:
    made = Time()
    box.reconciler.usb = UsbDevices(monotonic=made, sysfs=bus.sysfs, dev=bus.dev)
    return made


@pytest.fixture
def bus(tmp_path: Path) -> UsbBus:
    return UsbBus(tmp_path)


def waiting(box: Box) -> str:
    (resource,) = box.reconciler.board.snapshot()["resources"]
    return str(next(c["message"] for c in resource["conditions"] if c["type"] == "Waiting"))


def devices(box: Box) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = box.get("web").attrs["HostConfig"]["Devices"]
    return found


def test_it_waits_for_the_stick_and_is_made_anew_once_when_that_moves(
    box: Box, bus: UsbBus, time: Time
) -> None:
    assert str(box.apply(WEB)[0]) == "nothing to do"
    assert waiting(box) == "usb:0403:6001 is not plugged in"
    bus.plug("1-1", STICK, "tty/ttyUSB0")
    time.now += SETTLE_S
    box.apply()
    time.now += SETTLE_S
    box.apply()
    first = box.get("web").id
    assert devices(box) == [
        {"PathOnHost": f"{bus.dev}/ttyUSB0", "PathInContainer": "/dev/zigbee", "CgroupPermissions": "rw"}
    ]
    assert str(box.apply()[0]) == "nothing to do"

    bus.unplug("1-1")
    plan, _ = box.apply()
    assert [(op.verb, op.cause) for op in plan.operations] == [("stop", "usb:0403:6001 is not plugged in")]
    bus.plug("1-2", STICK, "tty/ttyUSB1")
    assert str(box.apply()[0]) == "nothing to do"
    assert "has just come" in waiting(box)
    time.now += SETTLE_S
    plan, outcomes = box.apply()
    assert [(op.verb, op.cause) for op in plan.operations] == [
        ("replace", f"usb:0403:6001 is {bus.dev}/ttyUSB1 now")
    ]
    assert [outcome.error for outcome in outcomes] == [None]
    assert (box.get("web").id != first, box.get("web").status) == (True, "running")
    assert devices(box)[0]["PathOnHost"] == f"{bus.dev}/ttyUSB1"
    assert str(box.apply()[0]) == "nothing to do"


def test_a_stick_that_comes_back_where_it_was_starts_the_same_container(
    box: Box, bus: UsbBus, time: Time
) -> None:
    bus.plug("1-1", STICK, "tty/ttyUSB0")
    box.apply(WEB)
    first = box.get("web").id
    bus.unplug("1-1")
    box.apply()
    assert box.get("web").status == "exited"
    bus.plug("1-3", STICK, "tty/ttyUSB0")
    box.apply()
    time.now += SETTLE_S
    box.apply()
    assert (box.get("web").id, box.get("web").status) == (first, "running")


def test_a_second_stick_that_fits_leaves_what_runs_alone(box: Box, bus: UsbBus, time: Time) -> None:
    bus.plug("1-1", STICK, "tty/ttyUSB0")
    box.apply(WEB)
    bus.plug("1-2", STICK, "tty/ttyUSB1", serial="B2")
    assert str(box.apply()[0]) == "nothing to do"
    assert waiting(box) == "usb:0403:6001 fits 2 devices: add a serial number (none, B2)"
    assert box.get("web").status == "running"


def test_a_container_may_wait_for_a_stick_that_it_is_not_given(box: Box, bus: UsbBus, time: Time) -> None:
    waits = WEB.replace("list device 'usb:0403:6001:/dev/zigbee:rw'", "list wait_for 'device:usb:0403:6001'")
    assert str(box.apply(waits)[0]) == "nothing to do"
    bus.plug("1-1", STICK, "tty/ttyUSB0")
    box.apply()
    time.now += SETTLE_S
    box.apply()
    assert box.get("web").status == "running"
    assert not devices(box)


async def test_the_loop_looks_again_by_itself_once_a_stick_has_settled(
    box: Box, bus: UsbBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices_module, "SETTLE_S", 0.5)
    box.reconciler.usb = UsbDevices(monotonic=real_time.monotonic, sysfs=bus.sysfs, dev=bus.dev)
    box.write(WEB)
    loop = Loop(box.reconciler, watch=(box.config,))
    async with asyncio.TaskGroup() as group:
        group.create_task(loop.run())
        await asyncio.to_thread(wait_for, lambda: "not plugged in" in str(box.reconciler.board.snapshot()))
        bus.plug("1-1", STICK, "tty/ttyUSB0")
        loop.trigger()
        await asyncio.to_thread(
            wait_for, lambda: box.names() == ["web"] and box.get("web").status == "running"
        )
        loop.stop()
    box.get("web").remove(force=True)  # the thread that reads events sees the end with the next one
    for thread in threading.enumerate():
        if thread.name == "events":
            await asyncio.to_thread(thread.join, 5)
