# SPDX-License-Identifier: GPL-2.0-or-later
"""Notices to an MQTT broker, by paho-mqtt 1.6 or 2."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

from agent.errors import NoticeError
from agent.model.notices import News, NotifySection, filled

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_STEP_S = 0.2
_KEEPALIVE_S = 30


def publish(section: NotifySection, news: News) -> None:
    """One message, and the broker's word that it has it (QoS 1). Raises NoticeError."""
    try:
        import paho.mqtt.client as paho
    except ImportError as exc:
        raise NoticeError(
            "MQTT needs paho-mqtt (OpenWrt and Debian: python3-paho-mqtt)", retryable=False
        ) from exc
    address = urlsplit(section.url)
    host = address.hostname or ""
    # paho 2 demands the version of its callbacks, which 1.6 does not know
    versions = getattr(paho, "CallbackAPIVersion", None)
    client: Any = paho.Client(versions.VERSION2) if versions is not None else paho.Client()
    refused: list[str] = []
    connected: list[bool] = []

    def on_connect(_client: Any, _data: Any, _flags: Any, code: Any, *_: Any) -> None:
        failed = code.is_failure if hasattr(code, "is_failure") else bool(code)
        if failed:
            refused.append(str(code) if hasattr(code, "is_failure") else paho.connack_string(code))
        else:
            connected.append(True)

    client.on_connect = on_connect
    deadline = time.monotonic() + section.timeout_s
    try:
        if section.username:
            client.username_pw_set(section.username, section.password or None)
        if address.scheme == "mqtts":
            client.tls_set(ca_certs=section.cacert or None)
        client.connect(host, address.port or _PORTS[address.scheme], keepalive=_KEEPALIVE_S)
        # what stands for a placeholder of a topic is no more than one level of it, and has no wildcards
        levels = {
            name: "".join("_" if letter in "/+# \t\n\0" else letter for letter in text) or "_"
            for name, text in news.values().items()
        }
        topic = filled(section.topic, levels)
        message: Any = None
        # paho's own thread (loop_start) is not used: the time-out has to end everything
        while time.monotonic() < deadline and not refused:
            if client.loop(timeout=_STEP_S) != paho.MQTT_ERR_SUCCESS:
                break
            if connected and message is None:
                message = client.publish(topic, section.body(news), qos=1, retain=section.retain)
            if message is not None and message.is_published():
                client.disconnect()
                return
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
        raise NoticeError(f"{host}: {why}") from exc
    if refused:
        raise NoticeError(f"{host} refused: {refused[0]}", retryable=False)
    # the loop ends early only where paho's did
    broke = time.monotonic() < deadline
    raise NoticeError(
        f"{host} closed the connection" if broke else f"{host} did not answer within {section.timeout_s:g} s"
    )
