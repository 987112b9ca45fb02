# SPDX-License-Identifier: GPL-2.0-or-later
"""Notices to a real broker, and to what is none."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import NoticeError
from agent.model.notices import Event, News, NotifySection
from agent.notices.channels import publish
from tests.support.agent_process import wait_for
from tests.support.broker import PASSWORD, USER, Broker
from tests.support.debian import CannotFetchError
from tests.support.receiver import answering, self_signed

NEWS = News(
    event=Event.UNHEALTHY, key="container:web", kind="container", section="web", name="a/+ #", message="ü"
)
SECTION = NotifySection(
    section="s",
    type="mqtt",
    url="",
    timeout_s=5.0,
    username=USER,
    password=PASSWORD,
    topic="x/{event}/{name}",
)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    try:
        made = Broker(tmp_path)
    except CannotFetchError as exc:
        pytest.skip(f"mosquitto: {exc}")
    yield made
    made.close()


@pytest.mark.long
def test_a_broker_gets_it_once_with_a_topic_of_its_own(broker: Broker) -> None:
    section = replace(SECTION, url=f"mqtt://127.0.0.1:{broker.port}")
    wait_for(lambda: broker._client.is_connected())
    time.sleep(0.5)  # the listener's subscription
    publish(section, NEWS)
    wait_for(lambda: broker.got)
    ((topic, text, _),) = broker.got
    assert topic == "x/unhealthy/a____"
    assert json.loads(text)["message"] == "ü"
    publish(replace(section, topic="kept", retain=True, format="text", template="{message}"), NEWS)
    wait_for(lambda: len(broker.got) == 2)
    assert broker.got[1][:2] == ("kept", "ü")


@pytest.mark.long
def test_a_wrong_password_is_told_and_not_tried_again(broker: Broker) -> None:
    section = replace(SECTION, url=f"mqtt://127.0.0.1:{broker.port}", password="wrong-S3CRET")
    with pytest.raises(NoticeError, match="refused") as caught:
        publish(section, NEWS)
    assert not caught.value.retryable
    assert "S3CRET" not in str(caught.value)


def test_one_that_says_nothing_costs_the_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        section = replace(SECTION, url=f"mqtt://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.5)
        began = time.monotonic()
        with pytest.raises(NoticeError, match=r"within 0\.5 s"):
            publish(section, NEWS)
        assert time.monotonic() - began < 5


def test_nobody_there_and_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    section = replace(SECTION, url="mqtt://127.0.0.1:1")
    with pytest.raises(NoticeError, match="refused"):
        publish(section, NEWS)
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(NoticeError, match="python3-paho-mqtt") as caught:
        publish(section, NEWS)
    assert not caught.value.retryable


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    section = replace(SECTION, url="mqtts://127.0.0.1:1", cacert=str(tmp_path / "ca.pem"))
    with pytest.raises(NoticeError, match=r"ca\.pem cannot be read"):
        publish(section, NEWS)
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    with pytest.raises(NoticeError, match=r"ca\.pem is not a certificate"):
        publish(section, NEWS)


@pytest.mark.parametrize(
    ("code", "said", "retryable"),
    [(3, "Server unavailable", True), (4, "Bad user name or password", False), (5, "Not authorized", False)],
)
def test_a_broker_that_is_not_ready_is_asked_again(code: int, said: str, retryable: bool) -> None:
    with answering(bytes([0x20, 2, 0, code])) as port, pytest.raises(NoticeError, match=said) as caught:
        publish(replace(SECTION, url=f"mqtt://127.0.0.1:{port}"), NEWS)
    assert caught.value.retryable is retryable


def test_tls_is_refused_in_words(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with answering(b"", context) as port:
        section = replace(SECTION, url=f"mqtts://127.0.0.1:{port}")
        with pytest.raises(NoticeError) as caught:
            publish(section, NEWS)
        assert str(caught.value).startswith("127.0.0.1: no TLS: certificate verify failed: ")
        assert "_ssl" not in str(caught.value)
    with (
        answering(b"HTTP/1.1 400 x\r\n\r\n") as port,
        pytest.raises(NoticeError, match="no TLS: this port does not speak TLS"),
    ):
        publish(replace(SECTION, url=f"mqtts://127.0.0.1:{port}"), NEWS)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        section = replace(SECTION, url=f"mqtts://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.5)
        began = time.monotonic()
        with pytest.raises(NoticeError, match=r"no answer within 0\.5 s"):
            publish(section, NEWS)
        assert time.monotonic() - began < 3
