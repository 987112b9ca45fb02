# SPDX-License-Identifier: GPL-2.0-or-later
"""The addresses of this host's LAN, from the real kernel, in a network namespace of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.types import IPAMConfig, IPAMPool

from agent.router.addresses import lan_addresses
from tests.support.dockerd import BUSYBOX

NAMESPACE = f"ucidockd-names-{os.getpid()}"
# bridge -> its ports, and the addresses on the bridge
BRIDGES = {
    "br-lan": (["lan0", "veth1234567"], ["192.168.71.1/24", "10.71.0.1/8", "fd71::1/64", "203.0.113.71/24"]),
    "docker0": ([], ["172.17.71.1/16"]),
    "br-0123456789ab": (["veth89abcde"], ["172.18.71.1/16", "fd18::1/64"]),
    "br-front": (["vethabcdef0", "vethabcdef1"], ["172.19.71.1/16"]),
}
ALONE = {"eth9": ["172.20.71.1/16", "fe80::71/64"]}


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def ip(*words: str) -> None:
    run("ip", "-n", NAMESPACE, *words)


def add_link(name: str) -> None:
    ip("link", "add", name, "type", "veth", "peer", "name", f"p-{name}")


def add_addresses(name: str, addresses: list[str]) -> None:
    ip("link", "set", name, "up")
    for address in addresses:
        ip("addr", "add", address, "dev", name, *(["nodad"] if ":" in address else []))


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this kernel has no IPv6")
    run("ip", "netns", "add", NAMESPACE)
    try:
        for name, (ports, addresses) in BRIDGES.items():
            ip("link", "add", name, "type", "bridge")
            for port in ports:
                add_link(port)
                ip("link", "set", port, "master", name)
            add_addresses(name, addresses)
        for name, addresses in ALONE.items():
            add_link(name)
            add_addresses(name, addresses)
        yield NAMESPACE
    finally:
        run("ip", "netns", "del", NAMESPACE)


def asked(namespace: str, expression: str) -> list[str]:
    code = f"import json; from agent.router.addresses import *; print(json.dumps({expression}))"
    words = ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-c", code]
    answer: list[str] = json.loads(run(*words))
    return answer


def test_private_addresses_count_and_those_of_bridges_with_only_dockers_ports_do_not(namespace: str) -> None:
    assert asked(namespace, "lan_addresses()") == [
        "10.71.0.1",
        "172.20.71.1",
        "192.168.71.1",
        "fd71::1",
    ]


def test_an_address_that_does_not_last_does_not_count(namespace: str) -> None:
    ip("addr", "add", "fd99::99/64", "dev", "br-lan", "nodad", "preferred_lft", "0")
    assert "fd99::99" not in asked(namespace, "lan_addresses()")


def test_the_host_name_and_the_san_list_are_among_the_names(namespace: str) -> None:
    names = asked(namespace, "local_server_names(['router.lan'])")
    assert {"router.lan", "localhost", "127.0.0.1", "::1", "192.168.71.1"} <= set(names)


def test_a_network_of_a_real_engine_is_left_out_whatever_its_bridge_is_called(
    docker_client: docker.DockerClient,
) -> None:
    pool = IPAMPool(subnet="10.215.71.0/24", gateway="10.215.71.1")
    network = docker_client.networks.create(
        "named", ipam=IPAMConfig(pool_configs=[pool]), options={"com.docker.network.bridge.name": "my-bridge"}
    )
    try:
        assert "10.215.71.1" in run("ip", "addr", "show", "my-bridge")
        assert "10.215.71.1" not in lan_addresses()
        container = docker_client.containers.run(
            BUSYBOX, "sleep 1000", detach=True, network="named", stop_signal="SIGKILL"
        )
        try:
            assert "veth" in run("ip", "link", "show", "master", "my-bridge")
            assert "10.215.71.1" not in lan_addresses()
        finally:
            container.remove(force=True)
    finally:
        network.remove()
