# SPDX-License-Identifier: GPL-2.0-or-later
"""A router from the installation of our packages to their removal, on a real engine: its port never opens without TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dockerd import busybox_tar, is_root
from tests.support.packages import Apk, Opkg, make
from tests.support.real_uci import why_not
from tests.support.whole_router import WholeRouter

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not is_root(), reason="namespaces need root"),
    pytest.mark.timeout(600),
]

WITH_TLS = """config globals 'globals'
	option data_root '/opt/docker/'
	option alt_config_file '/etc/ucidockd/daemon.json'
	list hosts 'unix:///var/run/docker.sock'
	list hosts 'tcp://0.0.0.0:2376'

config tls 'tls'
	option enabled '1'
	option mode 'auto'
"""
WEB = """config agent 'agent'

config container 'web'
	option image 'busybox:test'
	option command 'sleep 100000'
	option stop_signal 'SIGKILL'
	option restart 'always'
	option pull 'never'
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("feed")
    for release in ("1", "2"):
        make(folder / release, "--release", release)
    return {release: folder / release for release in ("1", "2")}


@pytest.fixture
def router(tmp_path: Path) -> Iterator[WholeRouter]:
    if reason := why_not():
        pytest.skip(reason)
    made = WholeRouter(tmp_path)
    try:
        yield made
    finally:
        made.close()


def package(folder: Path, name: str, suffix: str) -> Path:
    (found,) = (path for path in folder.glob(f"{name}[-_]0*") if path.suffix == suffix)
    return found


def container(router: WholeRouter) -> tuple[str, str]:
    """Its id and the process that it is; empty unless it runs."""
    said = router.docker("inspect", "-f", "{{.Id}} {{.State.Pid}} {{.State.Running}}", "web")
    number, _, rest = said.partition(" ")
    return (number, rest.split()[0]) if rest.endswith("true") else ("", "")


def installed(router: WholeRouter, manager: Opkg, folder: Path) -> None:
    """A router with dockerd gets our packages, a TCP host with TLS and a container."""
    router.install_dockerd()
    router.boot()
    router.wait(lambda: router.docker("info", "-f", "{{.ServerVersion}}"))
    tar = router.folder / "busybox.tar"
    tar.write_bytes(busybox_tar())
    router.docker("import", "/router/busybox.tar", "busybox:test")
    for name in ("ucidockd-python", "ucidockd"):
        manager.install(package(folder, name, manager.suffix))
    router.wait(lambda: router.run("ucidockd", "status", check=False))
    router.commit("dockerd", WITH_TLS)
    router.commit("containers", WEB)
    router.wait(lambda: container(router)[0] and router.speaks_tls())


def no_moment_was_unsafe(router: WholeRouter) -> None:
    assert router.opened() == ""
    ours = False
    for text in router.seen():
        assert "is missing" not in text
        if "/etc/ucidockd/daemon.json" in text:
            ours = True
        elif ours:
            assert "tcp://0.0.0.0" not in text, "without our file the stock script opens it"


def devices(router: WholeRouter) -> int:
    return router.path("etc/config/network").read_text().count("option name 'docker0'")


@pytest.mark.parametrize("kind", [Opkg, Apk])
def test_from_installation_to_removal(
    router: WholeRouter, packages: dict[str, Path], kind: type[Opkg]
) -> None:
    manager = kind(router)
    installed(router, manager, packages["1"])
    assert devices(router) == 1
    assert not router.path("etc/rc.d/S99dockerd").exists(), "the agent starts it"
    web = container(router)
    router.run("/etc/init.d/ucidockd", "start")  # procd knows the files as they are now
    router.wait(lambda: router.run("ucidockd", "status", check=False))
    agent = router.path("tmp/procd/ucidockd.agent.pid").read_text()
    count = len(router.seen())

    manager.install(package(packages["2"], "ucidockd", manager.suffix))
    assert router.path("usr/lib/ucidockd/release").read_text() == "0.1.0-r2\n"
    assert router.path("tmp/procd/ucidockd.agent.pid").read_text() != agent, "the old agent is still running"
    router.wait(lambda: router.run("ucidockd", "status", check=False))
    assert len(router.seen()) == count, "an upgrade has nothing to change"
    assert container(router) == web and router.speaks_tls()

    router.off()
    router.boot()
    router.wait(lambda: container(router)[0] == web[0] and router.speaks_tls())
    web = container(router)

    said = manager.remove("ucidockd")
    assert "tcp://0.0.0.0:2376" in said and "hosts-removed.uci" in said
    assert container(router) == web
    text = router.path("etc/config/dockerd").read_text()
    assert "alt_config_file" not in text and "tcp://" not in text
    assert router.path("etc/sysupgrade.conf").read_text() == ""
    assert not router.path("usr/lib/ucidockd").exists() or not list(
        router.path("usr/lib/ucidockd").rglob("*.pyc")
    )
    router.run("/etc/init.d/dockerd", "reload")
    assert container(router) == web

    router.off()
    router.boot()
    router.wait(lambda: container(router)[0] == web[0])
    assert router.is_closed()
    assert devices(router) == 1
    no_moment_was_unsafe(router)


def test_a_sysupgrade_without_our_package(router: WholeRouter, packages: dict[str, Path]) -> None:
    installed(router, Opkg(router), packages["1"])
    web = container(router)
    for _ in range(2):  # the second image does not know what the first one kept
        router.sysupgrade()
        router.boot()
        router.wait(lambda: container(router)[0] == web[0])
        assert not router.path("usr/bin/ucidockd").exists()
        # the user restarts it, as OpenWrt's page does
        router.run("/etc/init.d/dockerd", "restart")
        router.wait(lambda: container(router)[0] == web[0])
    assert devices(router) == 1
    no_moment_was_unsafe(router)


def test_a_sysupgrade_back_to_an_image_with_it(router: WholeRouter, packages: dict[str, Path]) -> None:
    manager = Opkg(router)
    installed(router, manager, packages["1"])
    web = container(router)
    router.sysupgrade()
    router.boot()
    router.wait(lambda: container(router)[0] == web[0])
    for name in ("ucidockd-python", "ucidockd"):
        manager.install(package(packages["2"], name, manager.suffix))
    router.wait(lambda: container(router)[0] and router.speaks_tls())
    assert container(router)[0] == web[0], "an upgrade recreates nothing"
    assert devices(router) == 1
    no_moment_was_unsafe(router)
