# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the engine is: what is an address, and which of them are this machine's."""

from __future__ import annotations

import pytest

from agent.model.addresses import EngineAddress, parse_engine_address
from agent.model.quantities import QuantityError

LOCAL = {
    "unix:///var/run/docker.sock": EngineAddress(path="/var/run/docker.sock"),
    "tcp://127.0.0.1:2375": EngineAddress(host="127.0.0.1", port=2375),
    "tcp://localhost:2375": EngineAddress(host="localhost", port=2375),
    "tcp://[::1]:2376": EngineAddress(host="::1", port=2376),
}
ELSEWHERE = {
    "tcp://192.168.1.2:2376": EngineAddress(host="192.168.1.2", port=2376),
    "tcp://[fd00::2]:2376": EngineAddress(host="fd00::2", port=2376),
    "tcp://nas.lan:2376": EngineAddress(host="nas.lan", port=2376),
}


@pytest.mark.parametrize("text", [*LOCAL, *ELSEWHERE])
def test_an_address_is_read_and_written_again(text: str) -> None:
    found = parse_engine_address(text)
    assert found == {**LOCAL, **ELSEWHERE}[text]
    assert str(found) == text
    assert found.is_local is (text in LOCAL)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "docker.sock",
        "unix://docker.sock",
        "unix://host/docker.sock",
        "tcp://:2376",
        "tcp://nas.lan",
        "tcp://nas.lan:0",
        "tcp://nas.lan:99999",
        "tcp://nas.lan:2376/path",
        "tcp://nas.lan:2376?tls=1",
        "tcp://root@nas.lan:2376",
        "tcp://[fd00::2:2376",
        "https://nas.lan:2376",
        "ssh://nas.lan",
    ],
)
def test_what_is_no_address_is_said_with_its_form(text: str) -> None:
    with pytest.raises(QuantityError, match="expected unix:///path, tcp://address:port"):
        parse_engine_address(text)
