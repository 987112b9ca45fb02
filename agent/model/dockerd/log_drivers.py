# SPDX-License-Identifier: GPL-2.0-or-later
"""dockerd's log drivers and the options that each of them accepts, for all containers and for a single one.

Source: moby, daemon/logger, 20.10 to 29. dockerd does not start with an option name that its driver does not know.
With an invalid value it starts, but then no container does. Plugins have their own options.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from agent.model.dockerd.settings import Json
from agent.model.dockerd.values import Discouraged
from agent.model.kernel_names import near
from agent.model.quantities import (
    QuantityError,
    few_bytes,
    parse_assignment,
    parse_bool,
    parse_int,
    parse_size,
)

DEFAULT = "json-file"
_ROTATED = frozenset({"max-size", "max-file", "compress"})  # options of drivers that write files
# options that add details of the container to each line
_SHOWN = frozenset({"env", "env-regex", "labels", "labels-regex"})
# options of every driver (moby daemon/logger: builtInLogOpts, and those of the copies that `docker logs` reads)
_ALWAYS = frozenset({"mode", "max-buffer-size", "cache-disabled", *(f"cache-{name}" for name in _ROTATED)})


def _own(prefix: str, names: str) -> frozenset[str]:
    return frozenset(f"{prefix}-{name}" for name in names.split())


_OPTIONS: dict[str, frozenset[str]] = {
    "json-file": _ROTATED | _SHOWN | {"tag"},
    "local": _ROTATED,
    "none": frozenset(),
    "journald": _SHOWN | {"tag"},
    "syslog": _SHOWN
    | {"tag"}
    | _own("syslog", "address facility format tls-ca-cert tls-cert tls-key tls-skip-verify"),
    "gelf": _SHOWN
    | {"tag"}
    | _own("gelf", "address compression-level compression-type tcp-max-reconnect tcp-reconnect-delay"),
    "fluentd": _SHOWN
    | {"tag"}
    | _own(
        "fluentd",
        "address async async-reconnect-interval buffer-limit max-retries read-timeout request-ack retry-wait"
        " sub-second-precision write-timeout",
    ),
    "awslogs": frozenset({"tag"})
    | _own(
        "awslogs",
        "create-group create-stream credentials-endpoint datetime-format endpoint force-flush-interval-seconds format"
        " group max-buffered-events multiline-pattern region stream",
    ),
    "splunk": _SHOWN
    | {"tag"}
    | _own(
        "splunk",
        "caname capath format gzip gzip-level index index-acknowledgment insecureskipverify source sourcetype token url"
        " verify-connection",
    ),
    "gcplogs": _SHOWN | _own("gcp", "log-cmd meta-id meta-name meta-zone project"),
    "logentries": _SHOWN | {"tag", "line-only", "logentries-token"},
    "etwlogs": frozenset(),
}
DRIVERS = tuple(_OPTIONS)
_SINCE = {
    "awslogs-create-stream": (29, 0),
    "awslogs-format": (23, 0),
    "fluentd-async-reconnect-interval": (23, 0),
    "fluentd-read-timeout": (29, 0),
    "fluentd-write-timeout": (28, 2),
}
_RENAMED = {"fluentd-async-connect": "fluentd-async"}  # the old name was removed in 28.0
# without these options dockerd starts with the log driver, but refuses every container
_NEEDED = {
    "awslogs": ("awslogs-group",),
    "gelf": ("gelf-address",),
    "logentries": ("logentries-token",),
    "splunk": ("splunk-url", "splunk-token"),
}
_PLUGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
# where another option begins in a line that holds several
_NEXT = re.compile(rf"[\s,;]+(?=(?:{'|'.join(sorted(_ALWAYS | _ROTATED | _SHOWN | {'tag'}))})\s*=)")
_INT_MAX = 2**31 - 1  # of a Go `int` on a 32-bit router
_GO_BOOLEANS = frozenset({"1", "t", "T", "true", "True", "TRUE", "0", "f", "F", "false", "False", "FALSE"})


def parse_log_driver(text: str) -> Json | Discouraged:
    """One of dockerd's own drivers, or a plugin as name:tag; without a tag it is `latest`, as with `docker plugin`."""
    if ":" in text or "/" in text:
        return text
    name = next((known for known in DRIVERS if _letters(known) == _letters(text)), "")
    if name:
        return name if name == text else Discouraged(name, f"{text!r} is a non-standard form", name)
    if not _PLUGIN.fullmatch(text):
        raise QuantityError(
            f"{text!r} is not a log driver", "a driver such as json-file, or a plugin as name:tag"
        )
    plugin = f"{text}:latest"
    return Discouraged(plugin, f"dockerd has no log driver {text!r}; it counts as a plugin", plugin)


def _letters(text: str) -> str:
    return re.sub("[-_.]", "", text.lower())


def split_log_opts(text: str) -> tuple[str, ...]:
    """Splits an entry that holds several options: `max-size=10m,max-file=3` would be a single size, which no container
    accepts."""
    return tuple(part for part in _NEXT.split(text.strip()) if part)


def parse_log_opt(text: str) -> tuple[str, Json] | Discouraged:
    """One option of dockerd's own drivers; its value is checked so that containers can start with it."""
    name, value = parse_assignment(text)
    if name == "max-size" and value == "-1":
        # the documented default, which both drivers refuse when a container is created (moby, go-units FromHumanSize)
        raise QuantityError(
            "-1 is refused for every container", "no max-size for no limit, or a size such as 10m"
        )
    if name in {"max-size", "max-buffer-size"}:
        parse_size(value)
        if wrong := few_bytes(value):
            return Discouraged((name, value), wrong, f"{name}={value}m")
    elif name == "max-file":
        parse_int(value, minimum=1, maximum=_INT_MAX)
    elif name == "mode" and value not in {"blocking", "non-blocking"}:
        raise QuantityError(f"{value!r} is not a mode", "blocking or non-blocking")
    elif name in {"compress", "cache-disabled"} and value not in _GO_BOOLEANS:
        value = "true" if parse_bool(value.lower()) else "false"
    new = _RENAMED.get(name)
    return (
        (name, value)
        if new is None
        else Discouraged((new, value), f"{name} is the old name", f"{new}={value}")
    )


def local_port(driver: str, options: Mapping[str, str]) -> int:
    """The TCP port of this machine on which a container's log has to be accepted for the container to start; 0 if none.

    Drivers that send over UDP, or connect later (`fluentd-async`), start in any case (moby daemon/logger).
    """
    if driver == "fluentd" and options.get("fluentd-async", "f")[:1] not in set("1tT"):
        scheme, host, port = _address(options.get("fluentd-address", ""), "tcp", 24224)
    elif driver == "syslog":
        scheme, host, port = _address(options.get("syslog-address", ""), "", 514)
    elif driver == "gelf":
        scheme, host, port = _address(options.get("gelf-address", ""), "", 12201)
    else:
        return 0
    return port if scheme.startswith("tcp") and (host == "localhost" or host.startswith("127.")) else 0


def _address(text: str, scheme: str, port: int) -> tuple[str, str, int]:
    found = re.fullmatch(r"(?:([a-z+]+)://)?([^:/]*)(?::(\d{1,5}))?", text)
    if found is None:
        return "", "", 0
    return found[1] or scheme, found[2] or "localhost", int(found[3] or port)


def known_options(driver: str) -> frozenset[str] | None:
    """The options of a driver, None for a plugin, whose options are unknown."""
    own = _OPTIONS.get(driver)
    return None if own is None else own | _ALWAYS


def drivers_with(name: str) -> tuple[str, ...]:
    """The drivers that accept an option."""
    return tuple(driver for driver in DRIVERS if name in _OPTIONS[driver] | _ALWAYS)


def option_since(name: str) -> tuple[int, int]:
    """The first version of dockerd that knows an option."""
    return _SINCE.get(name, (0, 0))


def missing_options(driver: str, given: Collection[str]) -> tuple[str, ...]:
    """The required options that are missing, without which no container can be created."""
    return tuple(name for name in _NEEDED.get(driver, ()) if name not in given)


def wrong_options(driver: str, given: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(name, mistake, suggestion) for each option that does not fit the driver or the other options."""
    known = known_options(driver)
    if known is None or driver == "none":
        return
    for name in given:
        if name not in known:
            others = drivers_with(name)
            hint = f"; it is one of {', '.join(others)}" if others else near(name, known)
            yield name, f"{name} is not an option of the log driver {driver}{hint}", _listed(driver)
    # moby daemon/logger, ValidateLogOpts
    if "max-buffer-size" in given and given.get("mode") != "non-blocking":
        yield (
            "max-buffer-size",
            "max-buffer-size works only with mode=non-blocking",
            "`mode=non-blocking` as well",
        )
    # with `compress` on a log that is never rotated dockerd starts, but containers do not (moby daemon/logger,
    # jsonfilelog and local, New)
    if driver in {"json-file", "local"} and given.get("compress", "0")[:1] in set("1tT"):
        # the drivers' defaults: json-file keeps one file, local keeps five
        files = given.get("max-file", "5" if driver == "local" else "1")
        unbounded = driver == "json-file" and given.get("max-size", "-1") == "-1"
        if files == "1" or unbounded:
            yield (
                "compress",
                "compress needs logs that are rotated: no container could start",
                "`max-size=10m` and `max-file=2` or more as well",
            )


def _listed(driver: str) -> str:
    return "one of " + ", ".join(sorted(_OPTIONS[driver] | {"mode"}))
