# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job, on a real engine: UCI in, containers out. `make demo` runs it; `--oneshot` checks each step and ends.

Starts an engine of its own, with a temporary root and in a network namespace of its own: an engine that runs already, its
containers, ports and firewall rules are not touched. A pair of virtual interfaces makes the published port reachable from
this machine. Works on a copy of examples/etc-config; everything is removed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import docker  # noqa: E402 - the demo runs from a checkout

from tests.support.dockerd import PrivateDockerd, busybox_tar  # noqa: E402
from tests.support.network import own_network  # noqa: E402

IMAGE = "busybox:demo"
LINK, HERE_ADDRESS, DEMO_ADDRESS = "ucidemo", "169.254.77.1", "169.254.77.2"
URL = f"http://{DEMO_ADDRESS}:18080/"


@contextlib.contextmanager
def an_engine() -> Iterator[str]:
    """The host of an engine in a network of its own, which this process is in from now on."""
    print("starting an engine of our own, in a network of its own", flush=True)
    with open("/proc/self/ns/net", "rb") as machine:
        own_network()
        _link(f"/proc/{os.getpid()}/fd/{machine.fileno()}")
        dockerd = PrivateDockerd(subnet=77)
        try:
            dockerd.start()
            yield dockerd.host
        finally:
            dockerd.close()
            _run("ip", "link", "del", LINK)


def _link(machine: str) -> None:
    """Connects this network with the machine's, which is given as a file of /proc."""
    outside = ("nsenter", f"--net={machine}")
    _run(*outside, "ip", "link", "del", LINK, check=False)  # of a demo that was killed
    _run("ip", "link", "add", LINK, "type", "veth", "peer", "name", f"{LINK}0")
    _run("ip", "link", "set", f"{LINK}0", "name", LINK, "netns", machine)
    _run("ip", "addr", "add", f"{DEMO_ADDRESS}/30", "dev", LINK)
    _run("ip", "link", "set", LINK, "up")
    _run(*outside, "ip", "addr", "add", f"{HERE_ADDRESS}/30", "dev", LINK)
    _run(*outside, "ip", "link", "set", LINK, "up")


def _run(*words: str, check: bool = True) -> None:
    subprocess.run(words, check=check, capture_output=not check)


class Demo:
    """One agent on one configuration directory."""

    def __init__(self, root: Path, host: str) -> None:
        self.config = root / "config"
        self.config.mkdir()
        self.containers = self.config / "containers"
        example = (HERE / "etc-config" / "containers").read_text()
        self.commit(example.replace("127.0.0.1:18080", f"{DEMO_ADDRESS}:18080"))
        self.socket = root / "run" / "agent.sock"
        self.options = [f"--config-dir={self.config}", f"--override-dir={root / 'override'}"]
        self.options += [f"--state-dir={root / 'state'}", f"--socket={self.socket}", f"--docker-host={host}"]
        self.engine = docker.DockerClient(base_url=host, version="auto")

    def commit(self, text: str) -> None:
        """As `uci commit` does: a temporary file, renamed over the old one."""
        temporary = self.config / ".containers.uci-demo"
        temporary.write_text(text)
        temporary.replace(self.containers)

    def command(self, *words: str) -> str:
        """Runs `ucidockd`; returns what it prints."""
        full = [sys.executable, "-m", "agent", *words, *self.options]
        done = subprocess.run(full, cwd=HERE.parent, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        """`ucidockd status --json`; {} while the agent is not up."""
        with contextlib.suppress(ValueError):
            found: dict[str, Any] = json.loads(self.command("status", "--json"))
            return found
        return {}

    def show(self, title: str, *words: str) -> None:
        """Prints a command and its output."""
        print(f"\n== {title}\n$ ucidockd {' '.join(words)}\n{self.command(*words)}", end="", flush=True)


class StepError(Exception):
    """A step was not seen to work; the message says which."""


def wait_for(what: str, check: Callable[[], bool], limit_s: float = 30) -> None:
    """Waits until `check` holds. Raises StepError when it does not."""
    begun = time.monotonic()
    while not check():
        if time.monotonic() - begun > limit_s:
            raise StepError(f"{what}: not seen within {limit_s:.0f} s")
        time.sleep(0.1)
    print(f"seen after {time.monotonic() - begun:.1f} s: {what}", flush=True)


def answer() -> str:
    """What the published port says, "" while it is closed."""
    with contextlib.suppress(OSError), urllib.request.urlopen(URL, timeout=2) as reply:
        return str(reply.read().decode().strip())
    return ""


def synced(demo: Demo) -> bool:
    """Whether every section is in sync."""
    resources = demo.status().get("resources", [])
    conditions = [{c["type"]: c["status"] for c in resource["conditions"]} for resource in resources]
    return bool(conditions) and all(item.get("Synced") for item in conditions)


def play(demo: Demo) -> None:
    """The steps, each checked."""
    wait_for("the published port answers `hello from one`", lambda: answer() == "hello from one")
    wait_for("all sections are in sync", lambda: synced(demo))
    demo.show("status", "status")
    before = demo.engine.containers.get("worker").id
    old = demo.engine.containers.get("web").id

    print("\n== uci set containers.web.env='GREETING=two'; uci set containers.worker.memory=16m; uci commit")
    text = demo.containers.read_text().replace("GREETING=one", "GREETING=two")
    changed = text.replace("option restart 'always'", "option restart 'always'\n\toption memory '16m'")
    staged = demo.config.parent / "staged"
    staged.mkdir()
    (staged / "containers").write_text(changed)
    print("$ ucidockd plan (of the staged files)")
    options = [f"--config-dir={staged}" if o.startswith("--config-dir") else o for o in demo.options]
    options = [o for o in options if not o.startswith("--socket")] + [f"--socket={staged / 'none.sock'}"]
    words = [sys.executable, "-m", "agent", "plan", *options]
    plan = subprocess.run(words, cwd=HERE.parent, capture_output=True, text=True, check=True).stdout
    print(plan, end="")
    if "replace" not in plan or "update" not in plan:
        raise StepError("the plan is not a swap of web and an update of worker")
    demo.commit(changed)
    wait_for("the published port answers `hello from two`", lambda: answer() == "hello from two")
    wait_for("all sections are in sync", lambda: synced(demo))
    if demo.engine.containers.get("web").id == old:
        raise StepError("web was not replaced")
    worker = demo.engine.containers.get("worker")
    if worker.id != before or worker.attrs["HostConfig"]["Memory"] != 16 << 20:
        raise StepError("worker's memory was not changed in place")
    demo.show("after the swap", "status")
    left = [c.name for c in demo.engine.containers.list(all=True) if ".ucidockd-" in c.name]
    if left:
        raise StepError(f"the swap left {left}")


def main() -> int:
    """Runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--oneshot", action="store_true", help="end after the last step")
    oneshot = parser.parse_args().oneshot
    if os.geteuid() != 0:
        sys.exit("the demo needs root, as Docker does: sudo make demo")
    with an_engine() as host, tempfile.TemporaryDirectory(prefix="ucidockd-demo-") as folder:
        demo = Demo(Path(folder), host)
        demo.engine.api.import_image_from_data(busybox_tar(), repository="busybox", tag="demo")
        words = [sys.executable, "-m", "agent", "run", *demo.options]
        agent = subprocess.Popen(words, cwd=HERE.parent)
        try:
            try:
                play(demo)
            except StepError as exc:
                demo.show("status", "status")
                demo.show("plan", "plan")
                print(f"\nFAILED: {exc}", file=sys.stderr)
                return 1
            print("\ndemo: every step was seen to work")
            if not oneshot:
                print(f"edit {demo.containers} and look at {URL}; Ctrl-C ends the demo")
                with contextlib.suppress(KeyboardInterrupt):
                    agent.wait()
        finally:
            agent.terminate()
            agent.wait(30)
            demo.engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
