# SPDX-License-Identifier: GPL-2.0-or-later
"""Which names and addresses a server certificate is made for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ConfigError
from agent.model.addresses import is_address, normal_name, normal_names, server_names


def test_names_come_first_then_addresses_each_once_and_in_one_spelling() -> None:
    found = server_names(
        hostname="OpenWrt",
        addresses=["192.168.1.1", "fd00:0:0::1", "127.0.0.1"],
        san=["Router.LAN.", "router.lan", "*.docker.lan", "FD00::1", "203.0.113.9"],
    )
    assert found == (
        "*.docker.lan",
        "localhost",
        "openwrt",
        "router.lan",
        "127.0.0.1",
        "192.168.1.1",
        "203.0.113.9",
        "::1",
        "fd00::1",
    )


@pytest.mark.parametrize("hostname", ["", "(none)", "my router", "a\nb", "x" * 64])
def test_a_host_name_that_no_certificate_can_carry_is_left_out(hostname: str) -> None:
    assert server_names(hostname=hostname) == ("localhost", "127.0.0.1", "::1")


WRONG = [
    "",
    " ",
    "a\nb",
    "router.lan\n",
    "\x00",
    "-x.lan",
    "x-.lan",
    "a..b",
    "*",
    "*.",
    "a.*.lan",
    "300.1.1.1",
    "1.2.3",
    "192.168.1.1/24",
    "192.168.1.1:2376",
    "[::1]",
    "fe80::1%eth0",
    "DNS:router.lan",
    "r\u00f6uter.lan",
    "x" * 64 + ".lan",
    "abcdefgh." * 30,
]


@pytest.mark.parametrize("san", WRONG)
def test_rubbish_is_refused(san: str) -> None:
    with pytest.raises(ConfigError, match="expected a DNS name or an IP address"):
        normal_name(san)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"'a b'.*; '1\.2\.3' is"):
        server_names(hostname="x", san=["a b", "good.lan", "1.2.3"])


@settings(max_examples=40)
@given(st.lists(st.text(max_size=12)))
def test_what_is_accepted_is_plain_and_stays_as_it_is(names: list[str]) -> None:
    for name in names:
        try:
            accepted = normal_name(name)
        except ConfigError:
            continue
        assert accepted.isascii()
        assert accepted.isprintable()
        assert normal_names([accepted]) == (accepted,)
        assert is_address(accepted) == is_address(name)
