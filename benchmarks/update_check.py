# SPDX-License-Identifier: GPL-2.0-or-later
"""Update checks: the number of requests to a registry for 50 sections with as many images.

The registry is a real one behind a proxy that counts. Peer: one request per image, which is also the goal.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from benchmarks.compose import PeerMissingError
from benchmarks.lab import Lab
from benchmarks.result import Result
from tests.support.registry import Registry, is_installed
from tests.support.registry_front import Front, publish

COUNT = 50
ROUNDS = 3


def run(lab: Lab) -> Iterator[Result]:
    """update-check: requests per image."""
    if not is_installed():
        raise PeerMissingError("docker-registry is not installed")
    lab.empty()
    fleet = lab.fresh()
    registry = Registry(fleet.folder / "registry")
    front = Front(registry.port)
    try:
        images = [f"bench/app{number}" for number in range(COUNT)]
        for image in images:
            publish(registry.address, image, "1", words=image)
        fleet.commit(
            0,
            "".join(
                f"config container 'c{number}'\n\toption image '{front.address}/{image}:1'\n\toption state 'stopped'\n"
                "\toption command 'never'\n"
                for number, image in enumerate(images)
            ),
        )
        fleet.apply()
        reconciler = fleet.reconciler()
        reconciler.begin_pass(deep=None)
        requests, took_s = [], []
        for round_ in range(ROUNDS):
            for image in images[: round_ * 10]:
                publish(registry.address, image, "1", words=f"{image} {round_}")
            before, begun = len(front.requests), time.monotonic()
            checks, desired = reconciler.update_checks(), reconciler.desired
            if desired is None:
                raise RuntimeError("the configuration cannot be read")
            checks.check(desired).result(120)
            took_s.append(time.monotonic() - begun)
            asked = front.requests[before:]
            requests.append(len(asked))
            found = sum(each.available is not None for each in checks.results(desired).values())
            pulls = sum(request.method != "HEAD" for request in asked)
            if found != round_ * 10 or pulls:
                raise RuntimeError(f"{found} updates were found, {pulls} requests were no HEAD")
    finally:
        front.close()
        registry.close()
        lab.empty()
    yield Result(
        name="update-check",
        ours=max(requests) / COUNT,
        peer=1,
        unit="requests",
        goal=f"a check of {COUNT} images makes at most one request for each, and none that counts as a pull",
        met=max(requests) <= COUNT,
        note=f"{statistics.median(took_s):.2f} s on this machine's loopback",
    )
