# SPDX-License-Identifier: GPL-2.0-or-later
"""What an inspected container becomes, where the engine of the other tests cannot show it: newer engines, oddities."""

from __future__ import annotations

from typing import Any

import pytest

from agent.model.resources import Endpoint, Port
from agent.plan.adoption import Adoption, AdoptionContext, adopt, section_name

ID = "0123456789ab" + "0" * 52


def an_inspect(
    *, config: dict[str, Any] | None = None, host: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "Id": ID,
        "Name": "/web",
        "Image": "sha256:1",
        "State": {"Status": "running", "Running": True},
        "Config": {"Image": "nginx:1", "Hostname": ID[:12], **(config or {})},
        "HostConfig": {"NetworkMode": "default", **(host or {})},
        "Mounts": [],
        "NetworkSettings": {"Networks": {}},
        **more,
    }


def adopted(body: dict[str, Any], **around: Any) -> Adoption:
    return adopt(body, AdoptionContext(image_id_now="sha256:1", **around), section="web")


def notes(body: dict[str, Any], **around: Any) -> list[str]:
    found = adopted(body, **around)
    return [*found.notes, *found.lost]


CANNOT = {
    "links": (an_inspect(host={"Links": ["/db:/web/db"]}), "Links: UCI has no option for it"),
    "a device that is neither a GPU nor of CDI": (
        an_inspect(host={"DeviceRequests": [{"Driver": "fpga", "Count": -1, "Capabilities": [["tpu"]]}]}),
        "a device request of the driver fpga cannot be expressed in UCI",
    ),
    "a setting of an engine to come": (
        an_inspect(host={"Novelty": 3}),
        "Novelty 3: UCI has no option for it",
    ),
    "unmasked paths": (
        an_inspect(host={"MaskedPaths": [], "ReadonlyPaths": ["/proc/sys"]}),
        "an empty MaskedPaths: UCI can only empty MaskedPaths and ReadonlyPaths together",
    ),
    "a taken-away variable": (
        an_inspect(config={"Env": ["GONE"]}),
        "env: removing the image's variable GONE cannot be expressed in UCI",
    ),
    "a volume's subpath": (
        an_inspect(host={"Mounts": [{"Type": "volume", "Target": "/a", "VolumeOptions": {"Subpath": "x"}}]}),
        "mount /a: Subpath cannot be expressed in UCI",
    ),
    "an image as a mount": (
        an_inspect(host={"Mounts": [{"Type": "image", "Source": "x", "Target": "/a"}]}),
        "mount /a: a mount of type image cannot be expressed in UCI",
    ),
    "labels of Compose": (
        an_inspect(config={"Labels": {"com.docker.compose.project": "x"}}),
        "the labels com.docker.compose.* are left out: Compose would take the container for its own",
    ),
    "a MAC address that somebody may have chosen": (
        an_inspect(
            NetworkSettings={
                "Networks": {
                    "bridge": {
                        "EndpointID": "e",
                        "MacAddress": "3a:5e:0a:00:00:01",
                        "IPAddress": "172.17.0.2",
                    }
                }
            }
        ),
        "network bridge: the MAC address 3a:5e:0a:00:00:01 is not taken over; the engine does not say who chose it",
    ),
}


HARMLESS = {"labels of Compose", "a MAC address that somebody may have chosen"}


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_said_is_noted_and_tells_whether_the_container_would_lack_it(name: str) -> None:
    body, note = CANNOT[name]
    found = adopted(body)
    expected = ((note,), ()) if name in HARMLESS else ((), (note,))
    assert (found.notes, found.lost) == expected


def test_unmasked_paths_are_an_option() -> None:
    found = adopted(an_inspect(host={"MaskedPaths": [], "ReadonlyPaths": []}))
    assert (found.lost, found.container.spec.security_opt) == ((), ("systempaths=unconfined",))


def test_a_bare_container_has_no_notes_and_only_an_image() -> None:
    found = adopted(an_inspect(host={"CgroupnsMode": "host", "ConsoleSize": [24, 80], "IpcMode": "private"}))
    assert found.notes == ()
    assert [name for name in found.container.spec.__slots__ if getattr(found.container.spec, name)] == [
        "image",
        "restart",  # none is a job's; unset is a service's
    ]


def test_the_default_of_the_cgroup_namespace_is_that_of_the_engine() -> None:
    assert notes(an_inspect(host={"CgroupnsMode": "private"}), info={"CgroupVersion": "2"}) == []


def test_an_image_name_that_moved_on_is_noted() -> None:
    (moved,) = adopt(an_inspect(), AdoptionContext(image_id_now="sha256:2"), section="web").notes
    assert "refers to another image now" in moved
    (gone,) = adopt(an_inspect(), AdoptionContext(), section="web").notes
    assert "is not there any more" in gone


def test_aliases_are_taken_without_the_short_id_and_static_addresses_with_their_network() -> None:
    lan = {
        "EndpointID": "e",
        "NetworkID": "n",
        "Aliases": ["www", ID[:12]],
        "IPAMConfig": {"IPv4Address": "10.1.0.9"},
        "IPAddress": "10.1.0.9",
        "MacAddress": "02:42:0a:01:00:09",
    }
    broken = {"EndpointID": "", "Aliases": None, "IPAMConfig": None}  # left by a connect that failed
    body = an_inspect(
        host={"NetworkMode": "lan"},
        NetworkSettings={"Networks": {"a": broken, "lan": lan, "bridge": {"EndpointID": "f"}}},
    )
    found = adopted(body, networks={"lan": {"Id": "n" * 64, "Driver": "bridge"}})
    assert found.container.spec.endpoints == (
        Endpoint(network="lan", aliases=("www",), ip="10.1.0.9"),
        Endpoint(network="bridge"),
    )
    assert [(n.section, n.adopt, n.spec.options) for n in found.networks] == [
        ("lan", True, (("com.docker.network.bridge.name", "br-nnnnnnnnnnnn"),))
    ]


def test_a_network_that_has_a_section_gets_no_second_one() -> None:
    body = an_inspect(host={"NetworkMode": "lan"}, NetworkSettings={"Networks": {"lan": {"EndpointID": "e"}}})
    assert adopted(body, sections={"network:lan": "lan"}).networks == ()


def test_ports_keep_their_address_and_protocol() -> None:
    bindings = {"80": [{"HostIp": "::1", "HostPort": "8080"}], "53/udp": [{"HostPort": ""}], "54/udp": None}
    assert adopted(an_inspect(host={"PortBindings": bindings})).container.spec.ports == (
        Port(container_port=53, protocol="udp"),
        Port(container_port=80, host_port=8080, host_ip="::1"),
    )


NAMES = {
    ("web", ""): "web",
    ("my-web.1", ""): "my_web_1",
    ("web", "web"): "web_net",
    ("web", "web web_net"): "web_net2",
    ("web", "web web_net web_net2"): "web_net3",
}


@pytest.mark.parametrize(("given", "expected"), NAMES.items())
def test_a_section_gets_a_free_name(given: tuple[str, str], expected: str) -> None:
    assert section_name(given[0], given[1].split(), suffix="net") == expected
