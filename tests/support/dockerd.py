# SPDX-License-Identifier: GPL-2.0-or-later
"""A real dockerd of one's own: private roots, bridge and address range, so that one already in use is not touched."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import docker

BUSYBOX = "busybox:test"
_APPLETS = (
    "sh",
    "ash",
    "sleep",
    "echo",
    "cat",
    "httpd",
    "true",
    "false",
    "ls",
    "env",
    "id",
    "touch",
    "kill",
    "wget",
    "nc",
    "vi",
    "stty",
)


def import_busybox(host: str, tag: str, changes: list[str] | None = None) -> str:
    """Makes an image of busybox on the engine of that address; returns its id. `changes`: lines of a Dockerfile."""
    client = docker.APIClient(base_url=host, version="auto")
    name, _, version = tag.rpartition(":")
    client.import_image_from_data(busybox_tar(), repository=name, tag=version, changes=changes)
    image_id = str(client.inspect_image(tag)["Id"])
    client.close()
    return image_id


def busybox_tar() -> bytes:
    """A root file system of Debian's static busybox, as `docker import` takes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "www", "data"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        tar.add("/bin/busybox", "bin/busybox")
        for applet in _APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        passwd = b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, io.BytesIO(passwd))
    return buffer.getvalue()


def version() -> int:
    """The major version of the dockerd that is first on PATH."""
    said = subprocess.run(["dockerd", "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.partition("version ")[2].partition(".")[0])


def unpacks_safely() -> bool:
    """Whether packed archives may reach it: engines from 29.5.1 on unpack them in the container's own root."""
    return version() >= 29


class PrivateDockerd:
    """Starts and stops one dockerd. `subnet` is the third number of 10.213.N.0/24."""

    def __init__(self, *, subnet: int = 1, root: Path | None = None) -> None:
        self.root = root or Path(tempfile.mkdtemp(prefix="ucidockd-engine-"))
        self.bridge = f"ucidt{subnet}"
        self.address = f"10.213.{subnet}.1/24"
        self.socket = self.root / "docker.sock"
        self.host = f"unix://{self.socket}"
        self.data = self.root / "data"
        self.arguments: tuple[str, ...] = ()  # more of them, from the next start on
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, timeout_s: float = 40) -> None:
        """Returns once the engine answers; raises RuntimeError with the end of its log when it does not."""
        self._make_bridge()
        with (self.root / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log)
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    "dockerd did not start:\n" + (self.root / "dockerd.log").read_text()[-3000:]
                )
            time.sleep(0.05)

    def _command(self) -> list[str]:
        return [
            shutil.which("dockerd") or "/usr/sbin/dockerd",
            f"--host={self.host}",
            f"--data-root={self.data}",
            f"--exec-root={self.root / 'exec'}",
            f"--pidfile={self.root / 'dockerd.pid'}",
            f"--bridge={self.bridge}",
            "--default-address-pool=base=10.214.0.0/16,size=24",
            *([] if version() >= 29 else ["--storage-driver=overlay2"]),  # 29's own default is another store
            *self.arguments,
        ]

    def _make_bridge(self) -> None:
        # asked of the kernel and not of /sys, which shows the network namespace that it was mounted in
        known = subprocess.run(["ip", "link", "show", self.bridge], capture_output=True, check=False)
        if known.returncode != 0:
            subprocess.run(["ip", "link", "add", self.bridge, "type", "bridge"], check=True)
            subprocess.run(["ip", "addr", "add", self.address, "dev", self.bridge], check=True)
            subprocess.run(["ip", "link", "set", self.bridge, "up"], check=True)

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            client = docker.APIClient(base_url=self.host, version="1.41", timeout=2)
            try:
                return bool(client.ping())
            finally:
                client.close()
        return False

    def import_busybox(self, tag: str = BUSYBOX, changes: list[str] | None = None) -> str:
        """Makes the test image; returns its id."""
        return import_busybox(self.host, tag, changes)

    def leftovers(self) -> list[str]:
        """Containers, networks and volumes that are there; none in an engine that nothing was made in."""
        client = docker.APIClient(base_url=self.host, version="1.41")
        try:
            return [
                *(f"container {item['Names']}" for item in client.containers(all=True)),
                *(f"network {item['Name']}" for item in client.networks(filters={"type": "custom"})),
                *(f"volume {item['Name']}" for item in client.volumes()["Volumes"] or ()),
            ]
        finally:
            client.close()

    def exchange(self, name: str) -> None:
        """While it is down: its data root becomes another one, which has its images and nothing else at first."""
        before, self.data = self.data, self.root / name
        if not self.data.exists():
            self.data.mkdir(mode=0o710)
            # containerd's store holds its images under one root with what containers have of them
            by_containerd = not (before / "overlay2").exists()
            for part in ("containerd",) if by_containerd else ("image", "overlay2"):
                subprocess.run(["cp", "-a", before / part, self.data / part], check=True)

    def kill(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer would; its containerd dies with it, the containers go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            # where process 1 does not reap, the dead containerd counts as alive, and is waited for in vain
            (self.root / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """SIGTERM and wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def close(self) -> None:
        """Stops it and removes all that it left."""
        with contextlib.suppress(Exception):
            client = docker.DockerClient(base_url=self.host, version="auto")
            for container in client.containers.list(all=True):
                container.remove(force=True, v=True)
            for network in client.networks.list(filters={"type": "custom"}):
                network.remove()
            client.close()
        self.stop()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            target = line.split()[1]
            if target.startswith(str(self.root)):
                subprocess.run(["umount", "-l", target], check=False)
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)
        shutil.rmtree(self.root, ignore_errors=True)


def is_root() -> bool:
    """A dockerd needs root."""
    return os.geteuid() == 0
