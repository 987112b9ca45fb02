# SPDX-License-Identifier: GPL-2.0-or-later
"""What must hold after every fault: declared containers run, nothing else of ours exists, and foreign objects are
untouched."""

from __future__ import annotations

from typing import Any

from tests.support.box import Box
from tests.support.dockerd import BUSYBOX

DECOY = "decoy"
_MOVES = {"State", "NetworkSettings"}  # fields of a foreign container that an engine restart may change


class Oracle:
    """Knows a foreign container, network and volume that must not be touched."""

    def __init__(self, box: Box) -> None:
        self.box = box
        box.client.networks.create(DECOY)
        box.client.volumes.create(DECOY)
        box.client.containers.create(BUSYBOX, ["sleep", "1000"], name=DECOY, network=DECOY)
        self._before = self._decoys()

    def _decoys(self) -> list[dict[str, Any]]:
        api = self.box.client.api
        container = {k: v for k, v in api.inspect_container(DECOY).items() if k not in _MOVES}
        network = {k: v for k, v in api.inspect_network(DECOY).items() if k != "Containers"}
        return [container, network, api.inspect_volume(DECOY)]

    def converge(self, passes: int = 8) -> None:
        """Runs passes until one has nothing to do; failures are retried without back-off."""
        reconciler = self.box.reconciler
        plan = ""
        for _ in range(passes):
            reconciler.forget_failures()
            plan = str(self.box.apply()[0])
            if plan == "nothing to do":
                return
        raise AssertionError(f"still to do after {passes} passes: {plan}\n{reconciler.board.snapshot()}")

    def check(self, expected: dict[str, str], *, networks: set[str] | None = None) -> None:
        """`expected`: container name -> its command; exactly these containers must run."""
        api = self.box.client.api
        seen = {c["Names"][0][1:]: (c["State"], c["Command"]) for c in api.containers(all=True)}
        seen.pop(DECOY)
        assert seen == {name: ("running", command) for name, command in expected.items()}, seen
        if networks is not None:
            custom = {n["Name"] for n in api.networks() if n["Name"] not in {"bridge", "host", "none", DECOY}}
            assert custom == networks, custom ^ networks
        assert self._decoys() == self._before, "a foreign object was touched"
        open_records = [r for r in self.box.reconciler.records.records() if r.swap or not r.object_id]
        assert open_records == []
        left = {
            p.name
            for p in self.box.options.state_dir.rglob("*")
            if p.suffix not in {".json", ".uci"} and not p.is_dir()
        }
        assert left == set(), "a temporary file is left"
