# SPDX-License-Identifier: GPL-2.0-or-later
"""Without us dockerd opens no port that only we kept safe: after a removal, and with the kept file alone."""

from __future__ import annotations

import json

import pytest

from tests.router.rootfs import PROJECT, Router

OURS = "/etc/ucidockd/daemon.json"


def dockerd(router: Router, text: str, *, tls: str = "") -> None:
    section = f"\nconfig tls 'tls'\n\toption enabled '{tls}'\n" if tls else ""
    router.write(
        "etc/config/dockerd", f"config globals 'globals'\n\toption alt_config_file '{OURS}'\n{text}{section}"
    )


def remove(router: Router, **env: str) -> str:
    router.write("etc/config/containers", "config agent 'agent'\n")
    router.script("etc/init.d/ucidockd", "#!/bin/ash\nexit 0\n")
    router.script(
        "usr/lib/prerm", (PROJECT / "package/ucidockd/files/prerm").read_text().replace("find ", "true ")
    )
    router.write("bin/true-find", "")
    return router.run("ash", "/usr/lib/prerm", **env).stdout


def hosts(router: Router) -> list[str]:
    return [
        line.split("'")[1]
        for line in (router.root / "etc/config/dockerd").read_text().splitlines()
        if " hosts " in line
    ]


@pytest.mark.parametrize(
    ("entries", "tls", "left"),
    [
        (["unix:///var/run/docker.sock", "tcp://0.0.0.0:2376"], "1", ["unix:///var/run/docker.sock"]),
        (["tcp://127.0.0.1:2376"], "1", []),
        (["tcp://0.0.0.0:2375", "tcp://127.0.0.1:2375"], "0", ["tcp://127.0.0.1:2375"]),
        (["0.0.0.0:2375"], "", []),
        (["TCP://0.0.0.0:2375", "tcp://[::]:2376", "tcp://127.0.0.1.example:1"], "", []),
        (["fd://", "unix:///a tcp://0.0.0.0:2376"], "1", ["fd://", "unix:///a"]),
        (["tcp://[::1]:2375", "tcp://localhost:2375"], "", ["tcp://[::1]:2375", "tcp://localhost:2375"]),
    ],
)
def test_removal_leaves_no_host_that_only_we_kept_safe(
    router: Router, entries: list[str], tls: str, left: list[str]
) -> None:
    dockerd(router, "".join(f"\tlist hosts '{entry}'\n" for entry in entries), tls=tls)
    said = remove(router)
    assert hosts(router) == left
    assert router.uci("get", "dockerd.globals.alt_config_file") == ""
    assert ("removed from dockerd's hosts" in said) == (left != entries)


def test_a_host_that_the_user_wants_open_stays(router: Router) -> None:
    dockerd(router, "\toption allow_insecure_tcp '1'\n\tlist hosts 'tcp://0.0.0.0:2375'\n")
    remove(router)
    assert hosts(router) == ["tcp://0.0.0.0:2375"]


def test_what_was_removed_comes_back_with_one_command(router: Router) -> None:
    dockerd(router, "\tlist hosts 'tcp://0.0.0.0:2376'\n", tls="1")
    remove(router)
    router.run("ash", "-c", "uci batch </etc/ucidockd/hosts-removed.uci")
    assert hosts(router) == ["tcp://0.0.0.0:2376"]


def test_an_upgrade_changes_nothing(router: Router) -> None:
    dockerd(router, "\tlist hosts 'tcp://0.0.0.0:2376'\n", tls="1")
    before = (router.root / "etc/config/dockerd").read_text()
    assert remove(router, PKG_UPGRADE="1") == ""
    assert (router.root / "etc/config/dockerd").read_text() == before


def test_a_file_of_the_users_stays(router: Router) -> None:
    router.write(
        "etc/config/dockerd", "config globals 'globals'\n\toption alt_config_file '/etc/docker/daemon.json'\n"
    )
    remove(router)
    assert router.uci("get", "dockerd.globals.alt_config_file") == "/etc/docker/daemon.json"


def test_from_the_first_boot_on_the_kept_file_is_safe_alone(router: Router) -> None:
    """All that is left after a sysupgrade to an image without us: /etc/config and /etc/ucidockd."""
    router.write(
        "etc/config/dockerd",
        "config globals 'globals'\n\tlist hosts 'tcp://0.0.0.0:2376'\n\nconfig tls 'tls'\n",
    )
    router.run("ash", "/etc/uci-defaults/60-ucidockd")
    path = router.uci("get", "dockerd.globals.alt_config_file")
    found = router.root / path[1:]
    assert path == OURS and found.is_file() and not found.is_symlink()
    assert json.loads(found.read_text())["hosts"] == ["unix:///var/run/docker.sock"]
    assert found.stat().st_mode & 0o777 == 0o600


def test_an_upgrade_from_0_1_0_keeps_its_daemon_json(router: Router) -> None:
    document = '{"hosts": ["unix:///var/run/docker.sock"], "debug": true}'
    router.write("var/run/ucidockd/daemon.json", document)
    router.write(
        "etc/config/dockerd",
        "config globals 'globals'\n\toption alt_config_file '/var/run/ucidockd/daemon.json'\n",
    )
    router.run("ash", "/etc/uci-defaults/60-ucidockd")
    assert router.uci("get", "dockerd.globals.alt_config_file") == OURS
    router.init("start")
    link = router.root / "var/run/ucidockd/daemon.json"
    assert str(link.readlink()) == OURS
    assert (router.root / OURS[1:]).read_text() == document
