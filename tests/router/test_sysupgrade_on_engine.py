# SPDX-License-Identifier: GPL-2.0-or-later
"""A sysupgrade: the files that are kept, on an empty system with an empty engine, bring everything back.

The first agent runs on the old system; what the packages keep is copied into a new root directory, where first boot
runs as the router's shell does it; another agent starts on that.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.router.rootfs import PROJECT, Router
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.dockerd import busybox_tar, is_root
from tests.support.registry import Registry, is_installed

pytestmark = [
    pytest.mark.skipif(not is_root(), reason="an engine needs root"),
    pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed"),
]

CONTAINERS = """
config agent 'agent'
	option daemon 'external'

config network 'front'
	list subnet '10.214.77.0/24'

config volume 'data'

config container 'web'
	option image '{image}'
	option command 'sleep 1000'
	option stop_signal 'SIGKILL'
	option gate '0'
	option memory '64m'
	list env 'COLOUR=red'
	list network 'front,ip=10.214.77.9'
	list volume 'data:/data'
"""

DOCKERD = """
config globals 'globals'
	option data_root '/opt/docker/'
	option alt_config_file '{run}/daemon.json'

config tls 'tls'
	option enabled '1'
	option mode 'auto'
	list san 'router.example'
"""


@pytest.fixture
def image(box: Box, tmp_path: Path) -> Iterator[str]:
    """An image that a registry has and the engine does not."""
    registry = Registry(tmp_path / "registry")
    name = f"{registry.address}/kept"
    try:
        # not the engine's busybox under another name: what stays in the engine would be used again, without a pull
        box.client.api.import_image_from_data(busybox_tar(), repository=name, tag="1")
        for line in box.client.api.push(name, "1", stream=True, decode=True):
            assert "error" not in line, line
        box.client.images.remove(f"{name}:1")
        yield f"{name}:1"
    finally:
        box.clean()
        registry.close()
        for left in box.client.images.list(name):
            box.client.images.remove(left.tags[0])


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def kept_folders() -> list[str]:
    """The folders among the package's conffiles; all of /etc/config is kept anyway."""
    text = (PROJECT / "package/ucidockd/Makefile").read_text()
    listed = text.partition("define Package/ucidockd/conffiles\n")[2].partition("endef")[0].split()
    return ["/etc/config", *(name for name in listed if name.endswith("/"))]


def client_bundle(agent: Agent, folder: Path) -> dict[str, bytes]:
    """What `ucidockd tls client` writes for one."""
    files = agent.words[:3]  # it asks neither the agent nor the engine
    command = [sys.executable, "-m", "agent", "tls", "client", folder.name, *files]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tree(folder)


def body(box: Box) -> dict[str, object]:
    """What the sections say of the container, as the engine shows it."""
    shown = box.get("web").attrs
    config = {key: shown["Config"][key] for key in ("Image", "Cmd", "Env")}
    networks = {name: net["IPAddress"] for name, net in shown["NetworkSettings"]["Networks"].items()}
    volumes = {(mount["Name"], mount["Destination"]) for mount in shown["Mounts"]}
    return {**config, "memory": shown["HostConfig"]["Memory"], "networks": networks, "volumes": volumes}


def test_everything_comes_back_from_what_is_kept(
    box: Box, router: Router, image: str, tmp_path: Path
) -> None:
    state = box.options.state_dir
    (box.config / "containers").write_text(CONTAINERS.format(image=image))
    (box.config / "dockerd").write_text(DOCKERD.format(run=box.config.parent))
    old = Agent(box)
    old.start()
    try:
        wait_for(lambda: running(box, "web"), limit_s=30)
        laptop = client_bundle(old, tmp_path / "laptop")
        first, declared = box.get("web").id, body(box)
        old.end()
    finally:
        old.close()

    # the new system: what is kept and nothing else, first boot's scripts, an empty engine
    box.clean()
    box.client.images.remove(image)
    source = {"/etc/config": box.config, "/etc/ucidockd/": state}
    for folder in kept_folders():
        shutil.move(source[folder], tmp_path / "backup" / folder.strip("/"))
        shutil.copytree(
            tmp_path / "backup" / folder.strip("/"), router.root / folder.strip("/"), dirs_exist_ok=True
        )
    identity = tree(router.root / "etc/ucidockd/tls")
    assert any("server" in name for name in identity)
    assert router.run("/etc/uci-defaults/60-ucidockd").returncode == 0
    box.config.symlink_to(router.root / "etc/config")
    state.symlink_to(router.root / "etc/ucidockd")

    new = Agent(box)
    new.start()
    try:
        wait_for(lambda: running(box, "web"), limit_s=30)
        wait_for(lambda: new.command("plan", "--exit-code").returncode == 0)
        assert body(box) == declared
        assert box.get("web").id != first
        assert box.names() == ["web"]
        assert identity == tree(state / "tls"), "clients of before would be turned away"
        assert client_bundle(new, tmp_path / "desk")["ca.pem"] == laptop["ca.pem"]
    finally:
        new.close()
