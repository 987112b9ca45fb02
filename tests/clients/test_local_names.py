# SPDX-License-Identifier: GPL-2.0-or-later
"""The addresses of this host's LAN, from the real kernel, in a network namespace of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

NAMESPACE = f"ucidockd-names-{os.getpid()}"
INTERFACES = {
    "br-lan": ["192.168.71.1/24", "10.71.0.1/8", "fd71::1/64", "203.0.113.71/24", "fe80::71/64"],
    "docker0": ["172.17.71.1/16"],
    "br-0123456789ab": ["172.18.71.1/16", "fd18::1/64"],
    "br-front": ["172.19.71.1/16"],
    "down0": ["172.20.71.1/16"],
}


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this kernel has no IPv6")
    run("ip", "netns", "add", NAMESPACE)
    try:
        for name, addresses in INTERFACES.items():
            run("ip", "-n", NAMESPACE, "link", "add", name, "type", "bridge")
            if name != "down0":
                run("ip", "-n", NAMESPACE, "link", "set", name, "up")
            for address in addresses:
                nodad = ["nodad"] if ":" in address else []
                run("ip", "-n", NAMESPACE, "addr", "add", address, "dev", name, *nodad)
        yield NAMESPACE
    finally:
        run("ip", "netns", "del", NAMESPACE)


def asked(namespace: str, expression: str) -> list[str]:
    code = f"import json; from agent.clients.local_names import *; print(json.dumps({expression}))"
    words = ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-c", code]
    answer: list[str] = json.loads(run(*words))
    return answer


def test_private_addresses_count_and_those_of_dockers_bridges_do_not(namespace: str) -> None:
    assert asked(namespace, "lan_addresses(bridges=frozenset({'br-front'}))") == [
        "10.71.0.1",
        "172.20.71.1",
        "192.168.71.1",
        "fd71::1",
    ]


def test_an_address_that_does_not_last_does_not_count(namespace: str) -> None:
    run("ip", "-n", namespace, "addr", "add", "fd99::99/64", "dev", "br-lan", "nodad", "preferred_lft", "0")
    assert "fd99::99" not in asked(namespace, "lan_addresses()")


def test_the_host_name_and_the_san_list_are_among_the_names(namespace: str) -> None:
    names = asked(namespace, "local_server_names(['router.lan'])")
    assert {"router.lan", "localhost", "127.0.0.1", "::1", "192.168.71.1"} <= set(names)
