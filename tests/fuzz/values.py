# SPDX-License-Identifier: GPL-2.0-or-later
"""The small languages of option values. The first byte of an input chooses the parser, the rest is the value.

For each: the parser's own error and no other, with a text that is not as long as a hostile value, and what is written
for a value reads as the same value.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.errors import ConfigError
from agent.model import entries, entry_text, kernel_names, quantities
from agent.model.addresses import normal_name, parse_listen
from agent.model.dockerd import values as daemon_urls
from agent.model.dockerd import values as daemon_values
from agent.model.quantities import QuantityError
from tests.fuzz.target import Target

MESSAGE_LIMIT = 1024  # characters: a mistake goes into log, status and replies


@dataclass(frozen=True, slots=True)
class Language:
    """A parser and its way back; `write` None: the value is nothing that a user wrote (a digest, a sum)."""

    parse: Callable[[str], Any]
    write: Callable[[Any], str] | None = str
    samples: tuple[str, ...] = ()


def check(languages: Sequence[Language], data: bytes) -> None:
    """One input: which language, and the text."""
    language = languages[data[0] % len(languages)] if data else languages[0]
    text = data[1:].decode("utf-8", "replace")  # other bytes are refused before (agent.uci.reader)
    try:
        value = _plain(language.parse(text))
    except QuantityError as exc:
        assert exc.wrong and exc.expected, f"{text!r}: says too little"
        return
    except ConfigError as exc:
        assert len(str(exc)) < MESSAGE_LIMIT
        return
    if language.write is not None:
        written = language.write(value)
        assert _plain(language.parse(written)) == value, f"{text!r} is {value!r}, is written {written!r}"


def _plain(value: Any) -> Any:
    """Of a value in an odd form, the value."""
    return value.value if isinstance(value, daemon_values.Discouraged) else value


def target(name: str, *languages: Language, words: Sequence[str] = ()) -> Target:
    """A target of these languages, with their samples as seeds."""
    seeds = tuple(
        bytes([number]) + sample.encode() for number, each in enumerate(languages) for sample in each.samples
    )
    pieces = {
        word for each in languages for sample in each.samples for word in sample.replace(":", " ").split()
    }
    return Target(
        name=name,
        check=lambda data: check(languages, data),
        seeds=seeds,
        words=tuple(word.encode() for word in (*words, *sorted(pieces))),
    )


def _ports(value: Any) -> str:
    """Only a whole range can be written as one entry; the parts of another are checked one by one."""
    written = list(entry_text.ports(value))
    back = [port for entry in written for port in entries.parse_ports(entry)]
    assert sorted(back, key=repr) == sorted(value, key=repr), f"{value!r} is written {written!r}"
    return written[0] if len(written) == 1 else "-".join(written)


def _pair(value: tuple[str, str]) -> str:
    return "=".join(value)


SIZES = target(
    "sizes",
    Language(quantities.parse_size, entry_text.size, ("0", "64m", "1.5g", "10MiB", "512 kb", "4096", "8p")),
    Language(quantities.parse_swap, lambda v: "-1" if v == -1 else entry_text.size(v), ("-1", "1g")),
    Language(quantities.parse_cpus, entry_text.cpus, ("0.5", "2", "0.000000001")),
    Language(quantities.parse_int, str, ("0", "-5", "9223372036854775807")),
    Language(daemon_values.parse_shm_size, str, ("64m",)),
    Language(daemon_values.parse_mtu, str, ("1500",)),
    Language(quantities.parse_bool, lambda v: "1" if v else "0", ("1", "disabled", "on")),
)
DURATIONS = target(
    "durations",
    Language(
        quantities.parse_duration,
        entry_text.duration,
        ("0", "30s", "1m30s", "1.5h", "500ms", ".5us", "1µs", "2562047h"),
    ),
    Language(quantities.parse_seconds, entry_text.seconds, ("5", "0.25", "1m30s", "1e5")),
    Language(daemon_values.parse_timeout, str, ("15",)),
    words=("ns", "us", "µs", "μs", "ms", "s", "m", "h", "."),
)
PORTS = target(
    "ports",
    Language(
        entries.parse_ports,
        None,
        ("80", "8080:80", "127.0.0.1:53:53/udp", "[::1]:8080:80", "7000-7010:8000-8010/sctp", "0.0.0.0::80"),
    ),
    Language(lambda text: _ports(entries.parse_ports(text)), None, ("1-3:1-3", ":::80", "65535-65535:1-1")),
    words=("tcp", "udp", "sctp", "[", "]:", "-", "::", "/"),
)
VOLUMES = target(
    "volumes",
    Language(
        entries.parse_volume,
        entry_text.mount,
        ("/data", "data:/data", "/mnt/sda1:/x:ro", "db:/var/lib//x/:nocopy,ro", "/a:/b:rshared,z", "..:/x"),
    ),
    Language(entries.parse_tmpfs, entry_text.tmpfs, ("/run", "/run:size=64m,mode=755", "//a//b:")),
    Language(
        entries.parse_device,
        entry_text.device,
        ("/dev/ttyUSB0", "/dev/a:/dev/b:rw", "/dev/a:rw", "usb:0658:0200", "usb:0658:0200:A1:/dev/z:r"),
    ),
    words=("ro", "rw", "nocopy", "rslave", "usb:", "/dev/", "..", "//"),
)
ENTRIES = target(
    "entries",
    Language(
        entries.parse_image,
        str,
        ("nginx:1.27", "reg.lan:5000/a/b_c--d:x@sha256:" + "0" * 64, "[::1]:5000/x", "sha256:" + "a" * 64),
    ),
    Language(entries.parse_ulimit, entry_text.ulimit, ("nofile=1024:2048", "core=-1", "nproc=5")),
    Language(entries.parse_restart, entry_text.restart, ("no", "always", "on-failure:5", "unless-stopped")),
    Language(
        entries.parse_endpoint, entry_text.endpoint, ("lan", "lan,alias=a,alias=b,ip=10.0.0.2,ip6=fd00::2")
    ),
    Language(entries.parse_dependency, entry_text.dependency, ("db", "db:healthy", "db:completed")),
    Language(
        entries.parse_wait,
        entry_text.wait,
        ("mount:/mnt/sda1", "device:/dev/ttyUSB0", "device:usb:0658:0200:X", "interface:wan", "clock"),
    ),
    Language(quantities.parse_pair, _pair, ("a=b", "a", "a=b=c")),
    Language(quantities.parse_assignment, _pair, ("net.ipv4.ip_forward=1",)),
    Language(quantities.split_words, shlex.join, ("sh -c 'a b'", 'x "y\\" z"', "")),
    Language(kernel_names.parse_capability, str, ("net_admin", "CAP_SYS_TIME", "all")),
    Language(kernel_names.parse_signal, str, ("SIGTERM", "term", "9", "SIGRTMIN+3")),
    Language(entries.parse_mac, str, ("02-42-AC-11-00-02",)),
    Language(lambda text: daemon_values.parse_default_ulimit(text)[0] + "=1", None, ("nofile=1:2",)),
)
HOSTS = target(
    "hosts",
    Language(
        daemon_values.parse_host,
        lambda host: host.text,
        ("unix:///var/run/docker.sock", "tcp://0.0.0.0:2375", "tcp://[::1]:2376/", "tcp://localhost:1"),
    ),
    Language(parse_listen, str, ("192.168.1.1:2380", "[fd00::1]:2380", "0.0.0.0:0")),
    Language(entries.parse_address, str, ("192.168.1.1", "fe80::1%br-lan", "::ffff:1.2.3.4")),
    Language(entries.parse_subnet, str, ("10.0.0.0/8", "fd00::/64", "10.0.0.0/255.0.0.0", "fe80::%1/64")),
    Language(daemon_values.parse_bip, str, ("172.18.0.1/24", "10.0.0.1/255.255.255.0")),
    Language(daemon_values.parse_pool, lambda v: f"{v['base']},{v['size']}", ("10.10.0.0/16,24",)),
    Language(daemon_urls.parse_mirror, str, ("https://mirror.lan:5000", "http://[::1]:5000/")),
    Language(daemon_urls.parse_registry, str, ("reg.lan:5000", "10.0.0.0/8", "[::1]:5000")),
    Language(daemon_urls.parse_proxy, str, ("http://user:pass@proxy.lan:3128", "socks5://[::1]:1")),
    Language(daemon_values.parse_data_root, str, ("/opt/docker/", "/mnt//x")),
    Language(
        entries.parse_extra_host, str, ("nas:192.168.1.5", "a=[fd00::1]", "x:host-gateway", "y:fd00::1")
    ),
    Language(normal_name, str, ("Router.LAN.", "*.lan", "fd00::1", "_x-y.z")),
    words=("tcp://", "unix://", "http://", "[", "]", "%", "::", "/", "\u2100", "\uff0e", "@", "?", "#"),
)
TARGETS = (SIZES, DURATIONS, PORTS, VOLUMES, ENTRIES, HOSTS)
