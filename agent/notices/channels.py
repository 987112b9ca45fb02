# SPDX-License-Identifier: GPL-2.0-or-later
"""Sends a notice: to a web server, to an MQTT broker (paho-mqtt 1.6 or 2), to a command or to scripts.

Every function blocks, at most a little longer than the section's time-out, and raises NoticeError. Error messages
contain only the host of an address, because the rest may be a secret, as in Slack's webhooks.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from agent.errors import NoticeError, PathError
from agent.files.user_paths import PATHS, mode_of
from agent.model.issues import plain
from agent.model.notices import News, NotifySection, filled
from agent.model.secrets import redactor

HOTPLUG_CALL = "/sbin/hotplug-call"
_REDIRECTS = 3  # in a row
_ANSWER = 300  # bytes of a receiver's error answer that are quoted
_OUTPUT = 4096  # bytes of a command's output that are read
_RETRY_AFTER_MAX_S = 600.0
_SCRIPT_S = 30.0  # for one script; it is killed then
_ENDED_S = 1.0  # wait for a command that was killed
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_WEB_PORTS = {"http": 80, "https": 443}
_STEP_S = 0.2  # between looks for MQTT's acknowledgement
_KEEPALIVE_S = 30
# what OpenSSL says, and what it means to a user
_TLS_WORDS = {
    "wrong version number": "this port does not speak TLS",
    "record layer failure": "this port does not speak TLS",
    "protocol version": "the server offers only versions before TLS 1.2",
    "unsupported protocol": "the server offers only versions before TLS 1.2",
    "certificate required": "the server demands a certificate of clients, which notices do not have",
    "eof occurred": "the server closed the connection during the handshake",
    "unexpected eof": "the server closed the connection during the handshake",
    "handshake failure": "the server refused the handshake",
}
# CONNACK's return codes of MQTT 3.1.1 and paho's names for those of 5: no later attempt gets another answer
_MQTT_REFUSALS = (1, 2, 4, 5)
_MQTT_REFUSED = (
    "Unsupported protocol version",
    "Client identifier not valid",
    "Bad user name or password",
    "Not authorized",
    "Banned",
    "Bad authentication method",
)


def send(section: NotifySection, news: News) -> None:
    """Sends the notice in the way of the section's type."""
    try:
        _send(section, news)
    except NoticeError as exc:
        exc.args = (redactor(section.secrets())(str(exc)),)
        raise


def _send(section: NotifySection, news: News) -> None:
    if section.type == "webhook":
        post(section, news)
    elif section.type == "mqtt":
        publish(section, news)
    else:
        run(section.command, news, section.timeout_s)


def post(section: NotifySection, news: News) -> None:
    """POSTs the text. Follows redirects only on the same host, because headers and text are meant for that host alone."""
    import requests  # docker-py has loaded it in an agent

    from agent.engine.transport import CallDeadline, keep_time

    body = section.body(news).encode()
    kind = "application/json" if section.format == "json" else "text/plain; charset=utf-8"
    headers: dict[str, str | bytes] = {
        "Content-Type": kind,
        "User-Agent": "ucidockd",
        "Accept-Encoding": "identity",
    }
    for name, value in section.headers:
        headers[name] = " ".join(filled(value, news.values()).split()).encode()
    url, deadline = section.url, CallDeadline()
    host = urlsplit(url).hostname or ""
    with requests.Session() as session:
        session.trust_env = False  # no proxies and no ~/.netrc of the user who started us
        _use_own_tls(session, section.cacert)
        keep_time(session, deadline)
        deadline.begin(section.timeout_s)
        try:
            for _ in range(_REDIRECTS + 1):
                with session.post(
                    url,
                    data=body,
                    headers=headers,
                    timeout=section.timeout_s,
                    stream=True,
                    allow_redirects=False,
                ) as response:
                    # redirects are followed here, because requests would send the headers, with a token, to any host
                    if not response.is_redirect:
                        _check(response, host)
                        return
                    url = _followed(url, str(response.headers["location"]), host)
        except ValueError as exc:
            # requests looks at a redirect's address, too, although it does not follow it
            raise NoticeError(
                f"{host}: its address, or the one that it redirects to, is not valid", retryable=False
            ) from exc
        except requests.exceptions.Timeout as exc:
            raise NoticeError(f"{host} did not answer within {section.timeout_s:g} s") from exc
        except (requests.exceptions.RequestException, OSError) as exc:
            raise NoticeError(f"{host}: {_words(exc, section.timeout_s)}") from exc
    raise NoticeError(f"{host} redirects again and again", retryable=False)


def _use_own_tls(session: Any, cacert: str) -> None:
    """Uses sockets that observe the deadline, and trusts the user's certificate in addition to the system's."""
    from requests.adapters import HTTPAdapter

    from agent.engine.transport import TimedTlsSocket

    context = _tls_context(cacert)
    # on a plain socket each byte restarts the time-out, so a slow receiver would never time out
    context.sslsocket_class = TimedTlsSocket

    class Encrypted(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **named: Any) -> None:
            super().init_poolmanager(*args, ssl_context=context, **named)

    session.mount("https://", Encrypted())


def _tls_context(cacert: str) -> ssl.SSLContext:
    # read here, with a deadline: paho would open a file on a mount that hangs, and not name a file that is missing
    try:
        return ssl.create_default_context(cadata=PATHS.read_text(cacert) if cacert else None)
    except PathError as exc:
        raise NoticeError(str(exc)) from exc
    except ssl.SSLError as exc:
        raise NoticeError(f"{cacert} is not a certificate", retryable=False) from exc


def _followed(url: str, location: str, host: str) -> str:
    target = urljoin(url, location)
    origin = _origin(urlsplit(target))
    if origin != _origin(urlsplit(url)):
        scheme, there, port = origin
        # the scheme too: many only send from http to https
        known = scheme in _WEB_PORTS and there
        place = f"{scheme}://{there}" + (f":{port}" if port != _WEB_PORTS.get(scheme) else "")
        raise NoticeError(
            f"{host} redirects to {place if known else 'another address'}, which is not followed: write that address",
            retryable=False,
        )
    return target


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port or _WEB_PORTS.get(url.scheme)


def _check(response: Any, host: str) -> None:
    import urllib3

    status: int = response.status_code
    if status < 300:
        return  # do not read the answer, which may be large
    try:
        said = response.raw.read(_ANSWER, decode_content=False).decode("utf-8", "replace")
    except urllib3.exceptions.HTTPError:
        said = ""  # its status counts, also if the rest never comes
    raise NoticeError(
        f"{host} answered with status {status}: {plain(' '.join(said.split()))}".rstrip(": "),
        # time-out, too early, too many: the only 4xx that may pass by themselves (RFC 9110, 8470, 6585)
        retryable=status >= 500 or status in (408, 425, 429),
        after_s=_retry_after_s(response.headers),
    )


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """The seconds that a receiver asks for, at most _RETRY_AFTER_MAX_S; 0 if it asks for none (RFC 9110, 10.2.3)."""
    wish = headers.get("retry-after", "")
    if wish.isascii() and wish.isdigit():
        return min(float(wish), _RETRY_AFTER_MAX_S)
    try:
        # by the receiver's own clock: the router's may not be set yet
        until, now = (parsedate_to_datetime(text) for text in (wish, headers.get("date", "")))
        return min(max((until - now).total_seconds(), 0.0), _RETRY_AFTER_MAX_S)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _words(exc: BaseException, timeout_s: float) -> str:
    # requests and urllib3 wrap an error several times, with the whole address in the text: report only the system's error
    found: BaseException | None = exc
    while found is not None:
        if isinstance(found, TimeoutError):
            return f"no answer within {timeout_s:g} s"
        if isinstance(found, ConnectionRefusedError):
            return "the connection was refused"
        if isinstance(found, socket.gaierror):
            return "the name cannot be resolved"
        if isinstance(found, ssl.SSLError):
            return _tls_words(found)
        if isinstance(found, HTTPException) and not isinstance(found, OSError):
            return "its answer is not HTTP"
        if isinstance(found, OSError) and found.strerror and not found.filename:
            return found.strerror
        found = found.__cause__ or found.__context__
    return f"no answer within {timeout_s:g} s" if "timed out" in str(exc) else "the connection broke"


def _tls_words(exc: ssl.SSLError) -> str:
    text = str(exc)
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"no TLS: certificate verify failed: {exc.verify_message}"
    means = (words for said, words in _TLS_WORDS.items() if said in text.lower())
    return f"no TLS: {next(means, 'the connection cannot be encrypted')}"


def variables(news: News) -> dict[str, str]:
    """The environment of a command or script, as for OpenWrt's hotplug scripts: ACTION is the event."""
    found = {name.upper(): text.replace("\0", "") for name, text in news.values().items() if name != "event"}
    return {"ACTION": news.event.value, **found}


def run(command: Sequence[str], news: News, timeout_s: float) -> None:
    """Runs a program with the event as JSON on its standard input. After the time-out it is killed with all its children.

    Uses files instead of pipes: a process that it leaves behind may keep pipes open, and a pipe that nobody reads fills up.
    """
    if "/" in command[0]:
        try:
            # checked first: starting a program on a mount that does not answer would never return
            PATHS.ask(mode_of, command[0])
        except PathError as exc:
            raise NoticeError(str(exc)) from exc
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **os.environ, **variables(news)}
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(json.dumps(news.as_json()).encode())
        given.seek(0)
        try:
            process = subprocess.Popen(
                list(command),
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=env,
                start_new_session=True,
            )
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
            raise NoticeError(f"{command[0]} cannot be run: {why}", retryable=False) from exc
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as exc:
            # it leads its own session, so this kills all its children too
            os.killpg(process.pid, signal.SIGKILL)
            # a process that waits for a file system that does not answer cannot be killed: leave it
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_ENDED_S)
            raise NoticeError(f"{command[0]} did not end within {timeout_s:g} s") from exc
        if code:
            said.seek(max(0, said.seek(0, os.SEEK_END) - _OUTPUT))
            last = said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
            raise NoticeError(
                f"{command[0]} ended with {code}: {plain(''.join(last))[:_ANSWER]}".rstrip(": ")
            )


def scripts(folder: Path) -> list[Path]:
    """The hotplug scripts in their order, without entries that are not files or do not answer."""
    try:
        names = sorted(PATHS.ask(os.listdir, str(folder)))
    except PathError:
        return []
    paths = [str(folder / name) for name in names if not name.startswith(".")]
    # all at once: on a dead mount they share one deadline
    found = PATHS.answers((mode_of, path) for path in paths)
    modes = {path: found[mode_of, path] for path in paths}
    return [Path(path) for path, mode in modes.items() if isinstance(mode, int) and stat.S_ISREG(mode)]


def hotplug(folder: Path, news: News) -> None:
    """Runs the scripts in /etc/hotplug.d/ucidockd with OpenWrt's hotplug-call, or with sh if there is none."""
    if os.access(HOTPLUG_CALL, os.X_OK) and folder.parent == Path("/etc/hotplug.d"):
        run((HOTPLUG_CALL, folder.name), news, _SCRIPT_S)
        return
    for script in scripts(folder):
        run(("/bin/sh", str(script)), news, _SCRIPT_S)


def publish(section: NotifySection, news: News) -> None:
    """Publishes one message and waits for the broker's confirmation (QoS 1). Raises NoticeError."""
    try:
        import paho.mqtt.client as paho
    except ImportError as exc:
        raise NoticeError(
            "MQTT needs paho-mqtt (OpenWrt and Debian: python3-paho-mqtt)", retryable=False
        ) from exc
    address = urlsplit(section.url)
    host = address.hostname or ""
    # paho 2 requires the version of its callbacks, which 1.6 does not know
    versions = getattr(paho, "CallbackAPIVersion", None)
    client: Any = paho.Client(versions.VERSION2) if versions is not None else paho.Client()
    refused: list[tuple[str, bool]] = []  # why, and whether it may pass
    connected: list[bool] = []

    def on_connect(_client: Any, _data: Any, _flags: Any, code: Any, *_: Any) -> None:
        failed = code.is_failure if hasattr(code, "is_failure") else bool(code)
        if failed and hasattr(code, "is_failure"):
            refused.append((str(code), str(code) not in _MQTT_REFUSED))
        elif failed:
            refused.append((paho.connack_string(code), code not in _MQTT_REFUSALS))
        else:
            connected.append(True)

    client.on_connect = on_connect
    deadline = time.monotonic() + section.timeout_s
    try:
        if section.username:
            client.username_pw_set(section.username, section.password or None)
        if address.scheme == "mqtts":
            client.tls_set_context(_tls_context(section.cacert))
        # paho waits for the connection and for TLS as long as these say
        client.connect_timeout = section.timeout_s
        keepalive = min(_KEEPALIVE_S, ceil(section.timeout_s))
        client.connect(host, address.port or _PORTS[address.scheme], keepalive=keepalive)
        # a value that replaces a placeholder in a topic must stay one level and contain no wildcards
        levels = {
            name: "".join("_" if letter in "/+# \t\n\0" else letter for letter in text) or "_"
            for name, text in news.values().items()
        }
        topic = filled(section.topic, levels)
        message: Any = None
        # not with paho's own thread (loop_start), because our time-out has to end everything
        while time.monotonic() < deadline and not refused:
            if client.loop(timeout=_STEP_S) != paho.MQTT_ERR_SUCCESS:
                break
            if connected and message is None:
                message = client.publish(topic, section.body(news), qos=1, retain=section.retain)
            if message is not None and message.is_published():
                client.disconnect()
                return
    except (OSError, ValueError) as exc:
        raise NoticeError(f"{host}: {_words(exc, section.timeout_s)}") from exc
    if refused:
        why, retryable = refused[0]
        raise NoticeError(f"{host} refused: {why}", retryable=retryable)
    # before the deadline the loop ends only because paho's loop did
    broke = time.monotonic() < deadline
    raise NoticeError(
        f"{host} closed the connection" if broke else f"{host} did not answer within {section.timeout_s:g} s"
    )
