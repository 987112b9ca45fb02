# SPDX-License-Identifier: GPL-2.0-or-later
"""What was exported and is imported again declares the same containers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.convert.compose import ComposeOptions, import_compose
from agent.convert.conversion import Conversion
from agent.convert.export import export_compose, export_run
from agent.convert.run_line import import_run
from agent.model.resources import Container, ContainerSpec, Desired, RestartPolicy
from agent.uci.decode import decode
from agent.uci.syntax import parse

RECORDED = (
    (Path(__file__).parents[1] / "data" / "container-bodies.jsonl").read_text().rstrip("\n").split("\n")
)
AROUND = json.loads(RECORDED[0])["around"]
PROFILE = "{}"


def read(text: str) -> Desired:
    packages = {"containers": parse(text, package="containers")}
    return decode(
        packages, paths={}, read_file=lambda path: PROFILE if path.endswith("json") else "F=1\n"
    ).desired


def recorded() -> Iterator[str]:
    return (row["text"] for row in map(json.loads, RECORDED[1:]) if "text" in row)


def web(desired: Desired, name: str = "") -> Container | None:
    return next((c for c in desired.containers if (c.name == name if name else c.section == "web")), None)


def again(conversion: Conversion) -> Desired:
    conversion.finish({}, read_file=lambda _: PROFILE)
    return read(conversion.as_json()["text"])


def normal(spec: ContainerSpec) -> ContainerSpec:
    """With docker's defaults said, since a line or a file has to say them."""
    networks = tuple(
        replace(endpoint, aliases=tuple(sorted(endpoint.aliases))) for endpoint in spec.endpoints
    )
    bridge = spec.network_mode or (None if networks else "bridge")
    restart = spec.restart or RestartPolicy(name="unless-stopped")
    # `--entrypoint` takes one word, and takes the image's command away as a longer one does
    words = (*(spec.entrypoint or ()), *(spec.command or ()))
    entrypoint, command = (words[:1], words[1:]) if spec.entrypoint else (None, spec.command)
    spec = replace(spec, entrypoint=entrypoint, command=command or None)
    return replace(spec, endpoints=networks, network_mode=bridge, restart=restart)


def usable(container: Container) -> bool:
    """docker finds no USB device by its number; a profile's text stands for its file."""
    return container.spec.seccomp is None and not any(
        d.host.startswith("usb:") for d in container.spec.devices
    )


def test_a_service_stays_one_without_ucidockd() -> None:
    """A section without `restart` is kept running; docker would never start its container again without a policy."""
    containers = read("config container 'web'\n\toption image 'x'\n\toption stop_timeout '5'\n").containers
    assert "--restart unless-stopped" in export_run(containers)
    composed = export_compose(containers)
    assert 'restart: "unless-stopped"' in composed
    assert 'stop_grace_period: "5s"' in composed


@pytest.mark.parametrize("form", ["run", "compose"])
def test_specs_come_back(form: str) -> None:
    wrong, tried = [], 0
    for text in recorded():
        desired = read(AROUND + text)
        container = web(desired)
        if container is None or not usable(container):
            continue
        tried += 1
        conversion = Conversion()
        shared = [c for c in desired.containers if c.section != "web"]
        if form == "run":
            exported = export_run([*shared, container], desired.networks, desired.volumes)
            import_run(exported, conversion)
        else:
            exported = export_compose([*shared, container], desired.networks, desired.volumes, project="all")
            import_compose(exported, conversion, ComposeOptions())
        back = web(again(conversion), container.name)
        used = {endpoint.network for endpoint in container.spec.endpoints}
        networks = {network.name: network.spec for network in desired.networks if network.name in used}
        found = {network.name: network.spec for network in again(conversion).networks}
        same = all(found.get(name) == spec for name, spec in networks.items())
        if back is None or normal(back.spec) != normal(container.spec) or not same:
            lines = [(line.where, line.text) for line in conversion.report if line.verdict != "taken"]
            wrong.append((text, exported, lines))
    assert tried > 250
    assert not wrong, (len(wrong), wrong[0])


TYPED = """
config network 'lan6'
	option subnet 'fd00:1::/64'

config network 'other'
	option external '1'

config container 'web'
	option image 'x'
	list network 'lan6'
	list network 'other'
	list security_opt 'no-new-privileges:true'
	option memory '64m'
	option memory_swap '-1'
	option blkio_weight '300'
	list device_read_bps '/dev/sda:1000'
	list gpus 'device=0,1,capabilities=compute'
"""


def test_values_have_the_types_that_compose_demands() -> None:
    """Tried with docker compose 2.40.3, which refuses texts for these numbers, and ignores `x-` keys."""
    yaml = pytest.importorskip("yaml")
    desired = read(TYPED)
    document = yaml.safe_load(export_compose(desired.containers, desired.networks))
    web = document["services"]["web"]
    assert web["security_opt"] == ["no-new-privileges:true"]
    assert web["memswap_limit"] == -1
    assert web["blkio_config"] == {"weight": 300, "device_read_bps": [{"path": "/dev/sda", "rate": 1000}]}
    assert web["gpus"] == [{"device_ids": ["0", "1"], "capabilities": ["gpu", "compute"]}]
    assert document["networks"]["lan6"]["enable_ipv6"] is True
    assert document["networks"]["other"] == {"name": "other", "external": True}
    assert not [key for key in web if key.startswith("x-")]
    line = export_run(desired.containers, desired.networks)
    assert "docker network create --subnet fd00:1::/64 --ipv6=true lan6" in line
    assert "docker network create other" not in line
    # and it comes back, with the settings of GPUs
    conversion = Conversion()
    import_compose(json.dumps(document), conversion, ComposeOptions())
    back = web_of(again(conversion))
    assert back.spec.gpus == desired.containers[0].spec.gpus


def web_of(desired: Desired) -> Container:
    found = web(desired)
    assert found is not None
    return found
