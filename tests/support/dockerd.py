# SPDX-License-Identifier: GPL-2.0-or-later
"""A private real dockerd with its own directories, bridge and address range, so that an engine already in use is not
touched."""

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
import docker.errors

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
    """Creates an image of busybox on the engine at that address; returns its id. `changes`: lines of a Dockerfile."""
    client = docker.APIClient(base_url=host, version="auto")
    name, _, version = tag.rpartition(":")
    client.import_image_from_data(busybox_tar(), repository=name, tag=version, changes=changes)
    image_id = str(client.inspect_image(tag)["Id"])
    client.close()
    return image_id


def busybox_tar() -> bytes:
    """A root file system with Debian's static busybox, in the form that `docker import` accepts."""
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
    """Whether packed archives may be sent to it: engines since 29.5.1 unpack them inside the container's root."""
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
        self.arguments: tuple[str, ...] = ()  # additional arguments, from the next start on
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, timeout_s: float = 40) -> None:
        """Starts dockerd and returns once the engine answers; raises RuntimeError with the end of its log if it does
        not."""
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
            *([] if version() >= 29 else ["--storage-driver=overlay2"]),  # the default of 29 is another store
            *self.arguments,
        ]

    def _make_bridge(self) -> None:
        # ask the kernel: /sys shows the network namespace in which it was mounted
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
        """Creates the test image; returns its id."""
        return import_busybox(self.host, tag, changes)

    def leftovers(self) -> list[str]:
        """The containers, networks and volumes that exist; none in an unused engine."""
        self._drop_ghosts()
        client = docker.APIClient(base_url=self.host, version="1.41")
        try:
            return [
                *(f"container {item['Names']}" for item in client.containers(all=True)),
                *(f"network {item['Name']}" for item in client.networks(filters={"type": "custom"})),
                *(f"volume {item['Name']}" for item in client.volumes()["Volumes"] or ()),
            ]
        finally:
            client.close()

    def _drop_ghosts(self) -> None:
        """Starts dockerd again if it lists containers that it does not have.

        Seen with 20.10 after the tests that kill: its list (moby, container/view.go) keeps one that it has removed. Only
        a start takes it away, and every later test would find it.
        """
        client = docker.APIClient(base_url=self.host, version="1.41")
        try:
            for _ in range(20):  # one that is being removed is listed for a moment
                if all(_is_there(client, item["Id"]) for item in client.containers(all=True)):
                    return
                time.sleep(0.1)
        finally:
            client.close()
        self.stop()
        self.start()

    def exchange(self, name: str) -> None:
        """Call it while dockerd is stopped: switches to another data_root, which at first has the images and nothing
        else."""
        before, self.data = self.data, self.root / name
        if not self.data.exists():
            self.data.mkdir(mode=0o710)
            # containerd's store keeps images and the containers' layers under one directory
            by_containerd = not (before / "overlay2").exists()
            for part in ("containerd",) if by_containerd else ("image", "overlay2"):
                subprocess.run(["cp", "-a", before / part, self.data / part], check=True)

    def kill(self) -> None:
        """Sends SIGKILL like the kernel's out-of-memory killer; its containerd dies with it, containers keep running."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            # if process 1 does not reap, the dead containerd counts as alive and dockerd waits for it in vain
            (self.root / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Whether its process exists."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Sends SIGTERM and waits."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def close(self) -> None:
        """Stops dockerd and removes everything that it left."""
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


def _is_there(client: docker.APIClient, object_id: str) -> bool:
    try:
        client.inspect_container(object_id)
    except docker.errors.NotFound:
        return False
    return True


def is_root() -> bool:
    """A dockerd needs root."""
    return os.geteuid() == 0
