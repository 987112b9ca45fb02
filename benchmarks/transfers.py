# SPDX-License-Identifier: GPL-2.0-or-later
"""Large bodies through the agent's API: export of a container and load of an image, with random data.

Throughput is compared with `curl --unix-socket` on dockerd itself; CPU time of the serving process and growth of its
resident memory with nginx as a reverse proxy without buffering. curl is the client in all cases.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bare import Bare
from benchmarks.compose import PeerMissingError
from benchmarks.lab import Lab
from benchmarks.nginx import nginx
from benchmarks.processes import begin_peak, cpu_s, peak_kib, resident_kib
from benchmarks.result import Result

ROUNDS = 3
GROWTH_KIB = 8 * 1024
PAGE_KIB = 4  # counted as a page if the peer does not grow: a ratio needs a number above 0
SHARE = 0.9
_IMAGE = "bench:random"
_CONTAINER = "random"
_MIB = 1024 * 1024
# the paths of both requests on the engine and on our API
_EXPORT = (f"/containers/{_CONTAINER}/export", f"/v1/containers/{_CONTAINER}/export")
_LOAD = ("/images/load", "/docker/images/load")


@dataclass(slots=True)
class _Samples:
    """Samples of one server: MiB per second, CPU seconds, growth in KiB. `cpu` stays empty if no process is measured."""

    speed: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    growth: list[float] = field(default_factory=list)


Curl = Callable[[Path, str], float]


def run_export(lab: Lab) -> Iterator[Result]:
    """export-throughput, export-cpu, export-memory."""
    lab.empty()
    folder = lab.folder / "export"
    folder.mkdir()
    _make_image(lab, folder)
    connection = Bare(str(lab.engine.socket))
    connection.call("POST", "/containers/create", {"Image": _IMAGE, "Cmd": ["true"]}, name=_CONTAINER)
    connection.close()

    def download(socket: Path, path: str) -> float:
        return _curl(socket, path, "--output", os.devnull, least=lab.mebibytes * _MIB)

    yield from _compare("export", lab, _EXPORT, download)
    _clean_up(lab, folder)


def run_load(lab: Lab) -> Iterator[Result]:
    """load-throughput, load-cpu, load-memory. The image exists already, so the engine only reads and compares."""
    lab.empty()
    folder = lab.folder / "load"
    folder.mkdir()
    _make_image(lab, folder)
    file = folder / "image.tar"
    _curl(lab.engine.socket, f"/images/get?names={_IMAGE}", "--output", str(file))

    def upload(socket: Path, path: str) -> float:
        # curl would wait for 100 Continue, whose cost differs between the servers
        words = (
            "--request",
            "POST",
            "--header",
            "Expect:",
            "--upload-file",
            str(file),
            "--output",
            os.devnull,
        )
        return _curl(socket, path, *words, least=lab.mebibytes * _MIB)

    yield from _compare("load", lab, _LOAD, upload)
    _clean_up(lab, folder)


def _compare(what: str, lab: Lab, paths: tuple[str, str], curl: Curl) -> Iterator[Result]:
    direct, ours, theirs = _Samples(), _Samples(), _Samples()
    fleet = lab.fresh()
    fleet.commit(0)
    with fleet.agent() as agent, nginx(lab.folder / f"nginx-{what}", lab.engine.socket) as peer:
        control = Path(str(fleet.options().socket))
        servers = [
            (direct, lab.engine.socket, paths[0], None),
            (ours, control, paths[1], agent.pid),
            (theirs, peer.socket, paths[0], peer.pid),
        ]
        for _, socket, path, pid in servers[1:]:
            _measure(
                _Samples(), socket, path, pid, curl
            )  # the first time loads code, and fills the page cache
        for number in range(ROUNDS):
            for samples, socket, path, pid in servers if number % 2 == 0 else reversed(servers):
                _measure(samples, socket, path, pid, curl)
    speed, floor = statistics.median(ours.speed), statistics.median(direct.speed)
    yield Result(
        name=f"{what}-throughput",
        ours=speed,
        peer=floor,
        unit="MiB/s",
        goal=f"at least {SHARE} of curl on dockerd",
        met=speed >= SHARE * floor,
        note=f"{lab.mebibytes} MiB; through nginx {statistics.median(theirs.speed):.0f} MiB/s",
    )
    mine, peers = statistics.median(ours.cpu), statistics.median(theirs.cpu)
    yield Result(
        name=f"{what}-cpu",
        ours=mine,
        peer=peers,
        unit="s",
        goal="less CPU time than nginx",
        met=mine < peers,
        note=f"{lab.mebibytes} MiB",
    )
    yield Result(
        name=f"{what}-memory",
        ours=max(ours.growth),
        peer=max(*theirs.growth, PAGE_KIB),
        unit="KiB",
        goal=f"resident memory grows by less than {GROWTH_KIB} KiB",
        met=max(ours.growth) < GROWTH_KIB,
    )


def _measure(samples: _Samples, socket: Path, path: str, pid: int | None, curl: Curl) -> None:
    if pid is None:
        samples.speed.append(curl(socket, path))
        return
    begin_peak(pid)
    before, used = resident_kib(pid), cpu_s(pid)
    samples.speed.append(curl(socket, path))
    samples.cpu.append(cpu_s(pid) - used)
    samples.growth.append(peak_kib(pid) - before)


def _curl(socket: Path, path: str, *more: str, least: int = 0) -> float:
    """MiB per second. Raises RuntimeError if curl failed, or moved fewer than `least` bytes."""
    program = shutil.which("curl")
    if program is None:
        raise PeerMissingError("there is no curl to compare with (package curl)")
    shown = "%{size_download} %{size_upload} %{time_total} %{http_code}"
    words = [
        program,
        "--silent",
        "--show-error",
        "--fail",
        "--unix-socket",
        str(socket),
        "--write-out",
        shown,
    ]
    done = subprocess.run(
        [*words, *more, f"http://localhost{path}"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"curl {path}: {done.stderr.strip()}")
    down, up, seconds, _ = done.stdout.split()[-4:]
    moved = max(int(down), int(up))
    if moved < least:
        raise RuntimeError(f"curl {path}: {moved} bytes came through, at least {least} were expected")
    return moved / _MIB / float(seconds)


def _make_image(lab: Lab, folder: Path) -> None:
    """Creates an image with one layer of random data."""
    data = folder / "random"
    with data.open("wb") as file:
        for _ in range(lab.mebibytes):
            file.write(os.urandom(_MIB))
    archive = folder / "root.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(data, "random")
    data.unlink()
    words = (
        "--request",
        "POST",
        "--header",
        "Expect:",
        "--upload-file",
        str(archive),
        "--output",
        os.devnull,
    )
    _curl(lab.engine.socket, "/images/create?fromSrc=-&repo=bench&tag=random", *words)
    archive.unlink()


def _clean_up(lab: Lab, folder: Path) -> None:
    lab.empty()
    connection = Bare(str(lab.engine.socket))
    connection.call("DELETE", f"/images/{_IMAGE}", force="1")
    connection.close()
    shutil.rmtree(folder)
