# SPDX-License-Identifier: GPL-2.0-or-later
"""Stacks are written out while sections are decoded: shared environment, and a network of their own."""

from __future__ import annotations

from agent.model.resources import Container, Desired, Endpoint, Network
from agent.uci.decode import DecodeResult, decode
from agent.uci.syntax import parse

FILES = {"/a.env": "A=file\nB=file\n"}


def read(text: str) -> DecodeResult:
    packages = {"containers": parse(text, package="containers")}
    return decode(packages, paths={"containers": "/etc/config/containers"}, read_file=FILES.__getitem__)


def container(text: str, section: str = "web") -> Container:
    result = read(text)
    assert not result.issues
    return next(c for c in result.desired.containers if c.section == section)


def networks(text: str) -> dict[str, Network]:
    return {network.section: network for network in read(text).desired.networks}


def web(*options: str, section: str = "web") -> str:
    return f"config container '{section}'\n option image nginx\n option stack media\n" + "".join(
        f" {option}\n" for option in options
    )


def test_members_meet_in_a_network_of_the_stack() -> None:
    assert container(web()).spec.endpoints == (Endpoint(network="media"),)
    assert networks(web())["media"].zone == "docker"


def test_the_sections_name_resolves_beside_another_docker_name() -> None:
    assert container(web("option name 'my-web'")).spec.endpoints == (
        Endpoint(network="media", aliases=("web",)),
    )


def test_a_network_that_is_named_is_the_only_one() -> None:
    text = "config network front\n" + web("list network front")
    assert container(text).spec.endpoints == (Endpoint(network="front"),)
    assert networks(text).keys() == {"front"}


def test_a_network_mode_needs_no_network() -> None:
    text = web("option network_mode host")
    assert container(text).spec.endpoints == ()
    assert not networks(text)


def test_the_stacks_network_can_be_named_with_settings() -> None:
    text = "config network front\n" + web("list network 'media,alias=www'", "list network front")
    assert container(text).spec.endpoints[0] == Endpoint(network="media", aliases=("www",))
    assert networks(text).keys() == {"front", "media"}


def test_a_declared_network_of_that_name_is_used() -> None:
    text = "config network media\n option zone lan\n" + web()
    assert networks(text)["media"].zone == "lan"


def test_zone_and_subnet_of_the_stack_are_the_networks() -> None:
    text = "config stack media\n option zone lan\n list subnet 172.30.0.0/24\n" + web()
    assert networks(text)["media"].zone == "lan"
    assert [pool.subnet for pool in networks(text)["media"].spec.pools] == ["172.30.0.0/24"]


def test_a_containers_own_environment_comes_first() -> None:
    shared = "config stack media\n list env_file /a.env\n list env B=stack\n list env C=stack\n"
    spec = container(shared + web("list env C=own")).spec
    assert spec.env == (("A", "file"), ("B", "stack"), ("C", "own"))


def test_without_members_there_is_no_network_and_a_warning() -> None:
    result = read("config stack media\n")
    assert result.desired.networks == ()
    assert [issue.severity for issue in result.issues] == ["warning"]


def test_a_mistake_in_a_stack_holds_its_members() -> None:
    """Without the shared environment they would be made anew."""
    result = read("config stack media\n list subnet 172.30.0.1/24\n list env '=x'\n" + web())
    assert result.desired.containers == ()
    assert {"container:web", "stack:media"} <= result.desired.broken


def test_a_wrong_subnet_is_said_once_and_at_the_stack() -> None:
    result = read("config stack media\n list subnet 172.30.0.1/24\n" + web())
    (issue,) = (issue for issue in result.issues if issue.option == "subnet")
    assert (issue.place, issue.line) == ("containers.media.subnet[0]", 1)
    assert issue.expected == "172.30.0.0/24"


def test_other_containers_keep_their_spec() -> None:
    plain = "config container other\n option image nginx\n"
    desired: Desired = read(plain + web()).desired
    assert next(c for c in desired.containers if c.section == "other") == container(plain, "other")
