# SPDX-License-Identifier: GPL-2.0-or-later
"""A real MQTT broker (Debian's mosquitto, unpacked if it is not installed) on a loopback port, and the messages that it
received."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

from tests.support.debian import CACHE, unpack

_PACKAGES = ("mosquitto", "libwrap0", "libdlt2", "libcjson1")
USER, PASSWORD = "router", "S3CRET-broker"


def program() -> tuple[str, dict[str, str]]:
    """The path of the program, and the environment that it needs. Raises CannotFetchError."""
    installed = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if installed:
        return installed, {}
    root = CACHE / "mosquitto"
    if not root.exists():
        unpack(_PACKAGES, suite="bookworm", into=root)
    libraries = next(root.glob("usr/lib/*-linux-gnu*"))
    return str(root / "usr/sbin/mosquitto"), {"LD_LIBRARY_PATH": str(libraries)}


class Broker:
    """Requires USER and PASSWORD. `got`: (topic, text, retained) of each message."""

    def __init__(self, folder: Path) -> None:
        path, environment = program()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        passwords = folder / "passwords"
        passwords.write_text(f"{USER}:{PASSWORD}\n")
        tool = Path(path).parent.parent / "bin/mosquitto_passwd"
        subprocess.run([tool, "-U", passwords], check=True, env={**os.environ, **environment})
        passwords.chmod(0o644)  # mosquitto drops root's rights
        config = folder / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\npassword_file {passwords}\nuser root\n")
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [path, "-c", config], stdout=log, stderr=log, env={**os.environ, **environment}
            )
        self.got: list[tuple[str, str, bool]] = []
        self._client = self._listen(folder / "log")

    def _listen(self, log: Path) -> Any:
        versions = getattr(paho, "CallbackAPIVersion", None)
        client: Any = paho.Client(versions.VERSION2) if versions is not None else paho.Client()
        client.username_pw_set(USER, PASSWORD)
        client.on_connect = lambda *_: client.subscribe("#", qos=1)
        client.on_message = lambda _client, _data, m: self.got.append(
            (m.topic, m.payload.decode(), bool(m.retain))
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                client.connect("127.0.0.1", self.port)
                break
            except OSError:
                assert self._process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        client.loop_start()
        return client

    def close(self) -> None:
        self._client.loop_stop()
        self._process.terminate()
        self._process.wait(10)
