# SPDX-License-Identifier: GPL-2.0-or-later
"""Each option that takes a path of the router, with a path that cannot be read: by a table that must name all of them."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.dockerd.unmanaged import version_of
from agent.engine.registry import RegistryClient, RegistryConfig, RegistryError
from agent.errors import DaemonError
from agent.model.updates import ImageName
from tests.support.agent_process import Agent, wait_for
from tests.support.box import Box
from tests.support.hanging import HangingMount

SCHEMAS = Path(__file__).parents[2] / "schemas"
RUNS = (
    "\toption image 'IMAGE'\n\toption command 'sleep 1000'\n\toption stop_timeout '0'\n\toption gate '0.1'\n"
)
OTHER = f"config container 'other'\n{RUNS}"
_OF_CONTAINER = "a path in the container"
_NAME = "the engine or the kernel reads it; here it is a name"

# option -> UCI text with PATH, in the package that the schema is of, or why no path of the router is read for it
OPTIONS: dict[str, str] = {
    "agent.cert": "config agent 'agent'\n\tlist listen '127.0.0.1:28947'\n\toption cert 'PATH'\n\toption key 'PATH'\n",
    "agent.key": "as cert, in the same section",
    "agent.docker_cert_path": "with docker_host only: tests/test_remote_engine.py, tests/engine/test_engine_tls.py",
    "agent.docker_host": "a socket, connected to with a deadline",
    "agent.dockerd": "with `daemon child` only, see below",
    "agent.socket": "made by the agent, before there is a pass",
    "backup.target": "config backup 'saved'\n\tlist volume 'data'\n\toption target 'PATH'\n\toption schedule 'daily'\n",
    "container.blkio_weight_device": _NAME,
    "container.cgroup_parent": _OF_CONTAINER,
    "container.device": f"config container 'device'\n{RUNS}\tlist device 'PATH'\n",
    "container.device_read_bps": _NAME,
    "container.device_read_iops": _NAME,
    "container.device_write_bps": _NAME,
    "container.device_write_iops": _NAME,
    "container.entrypoint": _OF_CONTAINER,
    "container.env_file": f"config container 'env_file'\n{RUNS}\tlist env_file 'PATH'\n",
    "container.health_cmd": _OF_CONTAINER,
    "container.hold_cmd": _OF_CONTAINER,
    "container.image": "the name of an image",
    "container.platform": "no path",
    "container.post_start": _OF_CONTAINER,
    "container.pre_stop": _OF_CONTAINER,
    "container.security_opt": f"config container 'seccomp'\n{RUNS}\tlist security_opt 'seccomp=PATH'\n",
    "container.tmpfs": _OF_CONTAINER,
    "container.volume": f"config container 'volume'\n{RUNS}\tlist volume 'PATH:/x'\n",
    "container.wait_for": f"config container 'wait_for'\n{RUNS}\tlist wait_for 'file:PATH'\n",
    "container.webui": "an address",
    "container.workdir": _OF_CONTAINER,
    "globals.alt_config_file": "tests/dockerd: the configuration is somebody else's then",
    "globals.data_root": "config globals 'globals'\n\toption data_root 'PATH'\n",
    "globals.hosts": "sockets that dockerd makes",
    "globals.seccomp_profile": "config globals 'globals'\n\toption seccomp_profile 'PATH'\n",
    "notify.cacert": (
        "config notify 'hook'\n\toption type 'webhook'\n\toption url 'https://127.0.0.1:9/'\n\toption cacert 'PATH'\n"
    ),
    "notify.command": "config notify 'program'\n\toption type 'exec'\n\tlist command 'PATH'\n",
    "notify.url": "an address",
    "stack.env_file": (
        f"config stack 'group'\n\tlist env_file 'PATH'\nconfig container 'member'\n{RUNS}\toption stack 'group'\n"
    ),
    "tls.cacert": "as cert, in the same section",
    "tls.cert": (
        "config tls 'tls'\n\toption enabled '1'\n\toption mode 'files'\n\toption cacert 'PATH'\n\toption cert 'PATH'\n"
        "\toption key 'PATH'\n"
    ),
    "tls.key": "as cert, in the same section",
}
_SAYS_PATH = re.compile(r"(?:^|[:=])/[A-Za-z]")


def said_of(schema: dict[str, Any]) -> list[str]:
    """What the schema shows of a value: its examples and default, those of its items too."""
    shown = [*schema.get("examples", ()), schema.get("default", "")]
    return [str(text) for each in shown for text in (each if isinstance(each, list) else [each])]


def test_the_table_names_each_option_that_shows_a_path() -> None:
    found = set()
    for file in SCHEMAS.glob("*.schema.json"):
        properties = json.loads(file.read_text()).get("properties", {})
        for name, schema in properties.items():
            takes_path = str(schema.get("pattern", "")).startswith("^/")
            if takes_path or any(_SAYS_PATH.search(text) for text in said_of(schema)):
                found.add(f"{file.name.removesuffix('.schema.json')}.{name}")
    assert found <= OPTIONS.keys()
    assert {
        name
        for name in OPTIONS
        if name.split(".")[0] not in {p.name.split(".")[0] for p in SCHEMAS.iterdir()}
    } == set()


@contextmanager
def path_of(kind: str, folder: Path) -> Iterator[Path]:
    """A path that is `kind`; what is mounted for it is unmounted afterwards."""
    path = folder / "odd" / "file"
    path.parent.mkdir()
    with ExitStack() as stack:
        match kind:
            case "fifo":
                os.mkfifo(path)
            case "sparse":
                with path.open("wb") as file:
                    file.truncate(1 << 40)
            case "endless":
                path = Path("/dev/zero")
            case "folder":
                path.mkdir()
            case "loop":
                path.symlink_to(path)
            case _:
                mount = stack.enter_context(HangingMount(path.parent))
                if kind == "dead":
                    mount.die()
        yield path


@pytest.mark.long
@pytest.mark.parametrize("kind", ["fifo", "sparse", "endless", "folder", "loop", "dead", "hanging"])
def test_no_such_path_holds_anything_else_up(box: Box, tmp_path: Path, kind: str) -> None:
    """In all options at once: another section is applied and changed, the agent answers, checks, and ends in time."""
    texts = {name: text for name, text in OPTIONS.items() if text.startswith("config ")}
    agent = Agent(box)
    with path_of(kind, tmp_path) as path:
        whole = "".join(t for name, t in texts.items() if name.split(".")[0] not in ("globals", "tls"))
        whole = whole.replace("PATH", str(path)) + "config volume 'data'\n"
        (box.config / "dockerd").write_text(
            "".join(texts[name] for name in ("globals.seccomp_profile", "tls.cert")).replace(
                "PATH", str(path)
            )
        )
        agent.commit(OTHER + "\toption memory '64m'\n" + whole)
        try:
            agent.start()
            wait_for(lambda: box.client.containers.list(filters={"name": "other"}), 60)
            agent.commit(OTHER + "\toption memory '96m'\n" + whole)
            wait_for(
                lambda: box.client.containers.get("other").attrs["HostConfig"]["Memory"] == 96 * 1024**2, 60
            )
            for words in (
                ("check",),
                ("plan",),
                ("status",),
                ("notify", "--test", "hook"),
                ("notify", "--test", "program"),
                ("backup", "saved"),
            ):
                began = time.monotonic()
                done = agent.command(*words)
                assert time.monotonic() - began < 40, words
                assert "Traceback" not in done.stderr, words
            log = agent.log.read_text()
            assert "Traceback" not in log, log[-3000:]
            began = time.monotonic()
            assert agent.end(signal.SIGTERM) == 0
            assert time.monotonic() - began < 15
        finally:
            agent.close()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["fifo", "endless", "folder", "loop", "hanging"])
def test_a_program_and_a_registrys_certificates_are_looked_at_with_a_deadline(
    tmp_path: Path, kind: str
) -> None:
    """What no option of a section names, and what only `daemon child` starts."""
    registry = "127.0.0.1:9"
    with path_of(kind, tmp_path) as path:
        folder = tmp_path / "certs.d" / registry
        if kind == "hanging":
            folder.parent.mkdir()
            folder.symlink_to(path)
        else:
            folder.mkdir(parents=True)
            (folder / "ca.crt").symlink_to(path)
        began = time.monotonic()
        with pytest.raises(DaemonError):
            version_of(str(path))
        with RegistryClient(RegistryConfig(certificates=tmp_path / "certs.d"), lambda _: None) as client:  # noqa: SIM117
            with pytest.raises(RegistryError, match="a certificate in"):
                client.ask(ImageName(registry, "app", "1"))
        assert time.monotonic() - began < 15
