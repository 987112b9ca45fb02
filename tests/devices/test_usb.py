# SPDX-License-Identifier: GPL-2.0-or-later
"""`usb:VID:PID[:serial]` against a sysfs of our own, with time moved by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.model.entries import parse_device, parse_wait
from agent.model.quantities import QuantityError
from agent.observe.waiting import SETTLE_S, Plugged, UsbDevices
from tests.support.usb import UsbBus

STICK = "0403:6001"
NAME = f"usb:{STICK}"


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def bus(tmp_path: Path) -> UsbBus:
    return UsbBus(tmp_path)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def devices(bus: UsbBus, time: Time) -> UsbDevices:
    return UsbDevices(monotonic=time, sysfs=bus.sysfs, dev=bus.dev)


def found(devices: UsbDevices, name: str = NAME) -> str:
    """The path in /dev, or the reason for none."""
    place = devices.resolve(name)
    return place.path.removeprefix(str(devices.dev)) or place.reason


def test_a_stick_is_found_in_whatever_port_it_is(bus: UsbBus, devices: UsbDevices) -> None:
    bus.plug("1-1.4", "1111:2222", "tty/ttyUSB0")
    bus.plug("1-2", STICK, "tty/ttyACM3")
    assert found(devices) == "/ttyACM3"


NODES = {
    "a serial port before others": (["hidraw/hidraw0", "tty/ttyUSB1"], "/ttyUSB1"),
    "the lowest interface of several": (["tty/ttyUSB4", "tty/ttyUSB2"], "/ttyUSB4"),
    "what another driver made": (["rare/rare0"], "/rare0"),
    "the raw device without a driver": ([], "/bus/usb/001/007"),
}


@pytest.mark.parametrize(("nodes", "path"), NODES.values(), ids=NODES.keys())
def test_the_most_useful_node_is_taken(bus: UsbBus, devices: UsbDevices, nodes: list[str], path: str) -> None:
    bus.plug("1-1", STICK, *nodes)
    assert found(devices) == path


def test_devices_behind_a_hub_are_not_the_hubs(bus: UsbBus, devices: UsbDevices) -> None:
    bus.plug("1-1", STICK)
    bus.plug("1-1.1", "1111:2222", "tty/ttyUSB0")
    assert found(devices) == "/bus/usb/001/007"


def test_two_sticks_that_fit_are_ambiguous_until_a_serial_number_tells_them_apart(
    bus: UsbBus, devices: UsbDevices
) -> None:
    bus.plug("1-1", STICK, "tty/ttyUSB0", serial="A1")
    bus.plug("1-2", STICK, "tty/ttyUSB1", serial="B2")
    assert devices.resolve(NAME) == Plugged(reason=f"{NAME} fits 2 devices: add a serial number (A1, B2)")
    assert found(devices, f"{NAME}:B2") == "/ttyUSB1"
    assert found(devices, f"{NAME}:C3") == f"{NAME}:C3 is not plugged in"


def test_what_is_gone_counts_at_once_and_what_comes_has_to_settle(
    bus: UsbBus, devices: UsbDevices, time: Time
) -> None:
    bus.plug("1-1", STICK, "tty/ttyUSB0")
    assert found(devices) == "/ttyUSB0"
    assert devices.settles_in() is None
    bus.unplug("1-1")
    assert devices.resolve(NAME) == Plugged(reason=f"{NAME} is not plugged in", gone=True)
    bus.plug("1-2", STICK, "tty/ttyUSB1")
    assert "has just come, as" in found(devices)
    time.now += SETTLE_S / 2
    assert "has just come, as" in found(devices)
    assert devices.settles_in() == SETTLE_S / 2
    time.now += SETTLE_S / 2
    assert found(devices) == "/ttyUSB1"
    assert devices.settles_in() is None


def test_a_loose_contact_is_given_out_once(bus: UsbBus, devices: UsbDevices, time: Time) -> None:
    bus.plug("1-1", STICK, "tty/ttyUSB0")
    given = {found(devices)}
    for number in range(20):
        bus.unplug("1-1")
        given.add(devices.resolve(NAME).path)
        bus.plug("1-1", STICK, f"tty/ttyUSB{number % 3}")
        time.now += 0.1
        given.add(devices.resolve(NAME).path)
    assert given == {"/ttyUSB0", ""}
    time.now += SETTLE_S
    assert found(devices) == "/ttyUSB1"


def test_a_number_that_changes_without_a_look_in_between_settles_too(
    bus: UsbBus, devices: UsbDevices, time: Time
) -> None:
    bus.plug("1-1", STICK, "tty/ttyUSB0")
    found(devices)
    bus.unplug("1-1")
    bus.plug("1-1", STICK, "tty/ttyUSB5")
    assert "has just come" in found(devices)
    time.now += SETTLE_S
    assert found(devices) == "/ttyUSB5"


def test_a_machine_without_usb_has_none(tmp_path: Path, time: Time) -> None:
    nowhere = UsbDevices(monotonic=time, sysfs=tmp_path / "no", dev=tmp_path)
    assert nowhere.resolve(NAME).gone


def test_names_are_taken_as_sysfs_writes_them() -> None:
    assert parse_device("usb:10C4:EA60:AbC:/dev/zigbee:rw").host == "usb:10c4:ea60:AbC"
    assert parse_wait("device:usb:10C4:EA60").target == "usb:10c4:ea60"
    for wrong in ("device:usb:1:2", "device:usb:10c4:ea60:/dev/x", "device:usb:"):
        with pytest.raises(QuantityError, match=r"USB device|nothing to wait"):
            parse_wait(wrong)
