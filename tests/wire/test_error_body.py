# SPDX-License-Identifier: GPL-2.0-or-later
"""What the body of a refused request says."""

from __future__ import annotations

import json

import pytest

from agent.engine.process import is_leftover_error
from agent.wire.bodies import LIMIT, error_message

NO_SHELL = 'exec: "sh": executable file not found in $PATH'


def refused(first: str, cause: str) -> bytes:
    """What an engine says of a container that cannot start."""
    layers = "OCI runtime create failed: runc create failed: unable to start container process"
    return json.dumps({"message": f"{first}: {layers}: {cause}: unknown"}).encode()


TAKEN = "listen tcp4 0.0.0.0:80: bind: taken"


def port_in_use(cause: str) -> bytes:
    """With the endpoint's id, which is another one at each try."""
    layers = f"driver failed programming external connectivity on endpoint web ({'0a' * 32})"
    return json.dumps({"message": f"failed to set up container networking: {layers}: {cause}"}).encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"message": "no such container: web"}', "no such container: web"),
        (b'{"message": 5}', "5"),
        (b'{"message": "m", "error": {"code": "c", "message": "m"}}', "m"),
        (b"404 page not found\n", "404 page not found"),
        (refused("failed to create shim task", NO_SHELL), NO_SHELL),  # 20.10
        (
            refused("failed to create task for container: failed to create shim task", NO_SHELL),
            NO_SHELL,
        ),  # 28
        (b'{"message": "OCI runtime create failed: "}', "OCI runtime create failed: "),
        (port_in_use("Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: taken"), TAKEN),  # 20.10
        (port_in_use(TAKEN), TAKEN),
        (
            b'{"message": "lookup a.lan on 10.0.0.1:53: read udp 10.0.0.2:50643->10.0.0.1:53: i/o timeout"}',
            "lookup a.lan on 10.0.0.1:53: i/o timeout",
        ),
        (b'{"message": "' + b"x" * 5000 + b'"}', "x" * LIMIT + "..."),
        (b"", "the engine answered 404"),
        (b"[]", "the engine answered 404"),
        (b'{"other": "S3CRET"}', "the engine answered 404"),
        (b"[" * 100_000, "the engine answered 404"),
        (b"\xff", "\ufffd"),
    ],
)
def test_its_message_or_its_text_or_the_status(body: bytes, said: str) -> None:
    assert error_message(body, 404) == said


def test_the_agent_is_named_where_it_answered() -> None:
    assert error_message(b"", 500, who="the agent") == "the agent answered 500"


@pytest.mark.parametrize(
    "layers",
    [
        ["failed to start shim"],  # 20.10
        ["failed to create shim task", "failed to start shim"],
        ["failed to create task for container"],  # 26, 28
        ["failed to create task for container", "failed to create shim task"],
    ],
)
def test_what_a_killed_engine_left_is_recognized_in_it(layers: list[str]) -> None:
    cause = f"mkdir /run/containerd/io.containerd.runtime.v2.task/moby/{'0a' * 32}: file exists"
    body = json.dumps({"message": ": ".join([*layers, cause, "unknown"])}).encode()
    assert is_leftover_error(error_message(body, 500))
    assert not is_leftover_error("mkdir /srv/data: file exists")
