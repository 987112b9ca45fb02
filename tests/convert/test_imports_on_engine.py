# SPDX-License-Identifier: GPL-2.0-or-later
"""An imported compose project runs as a stack: services find each other by name in a network that goes with the last one."""

from __future__ import annotations

import json

import pytest

from agent.convert.requests import ImportRequest
from agent.files.config import open_store
from agent.runtime.requests.adopt import Importer
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX, is_root

pytestmark = pytest.mark.skipif(not is_root(), reason="an engine needs root")

SERVICE = {"image": BUSYBOX, "command": ["sleep", "1000"], "stop_signal": "SIGKILL"}
COMPOSE = {
    "services": {"web": {**SERVICE, "container_name": "shop-web", "depends_on": ["db"]}, "db": SERVICE}
}


def test_services_of_a_project_resolve_and_the_network_goes_with_them(box: Box) -> None:
    box.write("")
    request = ImportRequest(compose=json.dumps(COMPOSE), project="shop", commit=True)
    answer = Importer(store=open_store(box.options)).run(request)
    assert answer["committed"]
    for _ in range(2):  # `web` comes once `db` runs
        assert not [o.error for o in box.apply()[1] if o.error]
    web, db = box.client.containers.get("shop-web"), box.client.containers.get("db")
    assert list(web.attrs["NetworkSettings"]["Networks"]) == ["shop"]
    assert web.exec_run(["busybox", "ping", "-c", "1", "-W", "2", "db"]).exit_code == 0
    assert db.exec_run(["busybox", "ping", "-c", "1", "-W", "2", "web"]).exit_code == 0
    box.apply("")
    box.later(3600)
    for _ in range(3):
        box.apply()
    assert "shop" not in {network.name for network in box.client.networks.list()}
