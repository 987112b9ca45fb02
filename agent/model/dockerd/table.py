# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of dockerd's options: UCI name, key of daemon.json, check, effect of a change, default, engine versions.

Decoding, rendering and classifying use it; a test compares it with the schemas. Which options SIGHUP applies was read
in moby's daemon/reload.go (20.10 to 29.7) and tested. dockerd keeps the value of most reloadable keys when they
disappear from its file; these rows have a `default`, which is written if UCI sets no value. Defaults of keys that
need a restart are those of OpenWrt's stock /etc/init.d/dockerd.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agent.model.dockerd.log_drivers import DEFAULT, known_options, parse_log_driver, parse_log_opt
from agent.model.dockerd.settings import Document, Effect, Json
from agent.model.dockerd.values import (
    Discouraged,
    mirror_needs,
    parse_attempts,
    parse_bip,
    parse_bip6,
    parse_cgroup,
    parse_data_root,
    parse_default_ulimit,
    parse_domain,
    parse_downloads,
    parse_exec_opt,
    parse_feature,
    parse_fixed_cidr,
    parse_fixed_cidr_v6,
    parse_label,
    parse_mark,
    parse_mirror,
    parse_mtu,
    parse_no_proxy,
    parse_pool,
    parse_proxy,
    parse_registry,
    parse_remap,
    parse_seccomp,
    parse_shm_size,
    parse_timeout,
    parse_uploads,
    seccomp_needs,
)
from agent.model.entries import parse_address
from agent.model.quantities import parse_bool

Version = tuple[int, int]
Parser = Callable[[str], Json | tuple[str, Json] | Discouraged]


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOption:
    """One row. A `key` with a dot is inside an object of daemon.json.

    `many`: a list; with `pairs` its entries form an object of daemon.json. `stops`: takes effect only if no container
    outlives the restart (moby daemon/daemon_unix.go leaves networks of running containers alone, and containers of
    another data_root would have no owner). `identity`: decides which engine this is, with which images and
    containers; a fallback configuration keeps its value. `since`: the first version that knows the key; `needs`: the
    first version that accepts this value (for a list: this entry). `words`: list entries never contain a space or
    comma, so several in one entry can be split. `file`: an absolute path names a seccomp profile, which dockerd reads
    at its start and without which it does not start.
    """

    uci: str
    key: str
    parse: Parser
    section: str = "globals"
    many: bool = False
    pairs: bool = False
    effect: Effect = Effect.RESTART
    default: Json = None
    since: Version = (0, 0)
    needs: Callable[[Json], Version] | None = None
    stops: bool = False
    identity: bool = False
    words: bool = False
    file: bool = False


def _text(text: str) -> str:
    return text


TABLE = (
    DaemonOption(
        uci="data_root",
        key="data-root",
        parse=parse_data_root,
        default="/opt/docker",
        stops=True,
        identity=True,
    ),
    DaemonOption(uci="log_level", key="log-level", parse=_text, default="warn"),
    DaemonOption(uci="log_format", key="log-format", parse=_text, since=(25, 0)),
    DaemonOption(uci="log_driver", key="log-driver", parse=parse_log_driver),
    DaemonOption(uci="log_opts", key="log-opts", parse=parse_log_opt, many=True, pairs=True),
    # the firewall
    DaemonOption(uci="iptables", key="iptables", parse=parse_bool, default=True),
    DaemonOption(uci="ip6tables", key="ip6tables", parse=parse_bool, default=False, since=(20, 10)),
    DaemonOption(uci="firewall_backend", key="firewall-backend", parse=_text, since=(29, 0), stops=True),
    DaemonOption(uci="ip_forward", key="ip-forward", parse=parse_bool),
    DaemonOption(uci="ip_forward_no_drop", key="ip-forward-no-drop", parse=parse_bool, since=(28, 0)),
    DaemonOption(
        uci="allow_direct_routing", key="allow-direct-routing", parse=parse_bool, since=(28, 2), stops=True
    ),
    DaemonOption(uci="bridge_accept_fwmark", key="bridge-accept-fwmark", parse=parse_mark, since=(29, 0)),
    # the default bridge
    DaemonOption(uci="bip", key="bip", parse=parse_bip, stops=True),
    DaemonOption(uci="bip6", key="bip6", parse=parse_bip6, since=(28, 0), stops=True),
    DaemonOption(uci="fixed_cidr", key="fixed-cidr", parse=parse_fixed_cidr, stops=True),
    DaemonOption(uci="fixed_cidr_v6", key="fixed-cidr-v6", parse=parse_fixed_cidr_v6, stops=True),
    DaemonOption(uci="ipv6", key="ipv6", parse=parse_bool, stops=True),
    DaemonOption(uci="ip", key="ip", parse=parse_address, stops=True),
    DaemonOption(uci="ip_masq", key="ip-masq", parse=parse_bool, stops=True),
    DaemonOption(uci="icc", key="icc", parse=parse_bool, stops=True),
    DaemonOption(uci="mtu", key="mtu", parse=parse_mtu, stops=True),
    # images and containers
    DaemonOption(uci="storage_driver", key="storage-driver", parse=_text, stops=True, identity=True),
    DaemonOption(
        uci="storage_opts", key="storage-opts", parse=_text, many=True, stops=True, identity=True, words=True
    ),
    DaemonOption(
        uci="containerd_snapshotter",
        key="features.containerd-snapshotter",
        parse=parse_bool,
        since=(23, 0),
        stops=True,
        identity=True,
    ),
    DaemonOption(
        uci="features", key="features", parse=parse_feature, many=True, pairs=True, stops=True, words=True
    ),
    DaemonOption(uci="userns_remap", key="userns-remap", parse=parse_remap, stops=True, identity=True),
    # container defaults
    DaemonOption(uci="dns", key="dns", parse=parse_address, many=True, words=True),
    DaemonOption(uci="dns_opts", key="dns-opts", parse=_text, many=True, words=True),
    DaemonOption(uci="dns_search", key="dns-search", parse=parse_domain, many=True, words=True),
    DaemonOption(uci="host_gateway_ip", key="host-gateway-ip", parse=parse_address, since=(20, 10)),
    DaemonOption(uci="default_address_pools", key="default-address-pools", parse=parse_pool, many=True),
    DaemonOption(
        uci="default_ulimits",
        key="default-ulimits",
        parse=parse_default_ulimit,
        many=True,
        pairs=True,
        words=True,
    ),
    DaemonOption(
        uci="default_shm_size",
        key="default-shm-size",
        parse=parse_shm_size,
        effect=Effect.RELOAD,
        default=str(64 * 1024 * 1024),
    ),
    DaemonOption(uci="default_cgroupns_mode", key="default-cgroupns-mode", parse=_text, since=(20, 10)),
    DaemonOption(uci="cgroup_parent", key="cgroup-parent", parse=parse_cgroup),
    DaemonOption(uci="exec_opts", key="exec-opts", parse=parse_exec_opt, many=True, stops=True, words=True),
    DaemonOption(
        uci="seccomp_profile", key="seccomp-profile", parse=parse_seccomp, needs=seccomp_needs, file=True
    ),
    DaemonOption(uci="no_new_privileges", key="no-new-privileges", parse=parse_bool),
    DaemonOption(uci="init", key="init", parse=parse_bool),
    # registries
    DaemonOption(
        uci="registry_mirrors",
        key="registry-mirrors",
        parse=parse_mirror,
        many=True,
        effect=Effect.RELOAD,
        default=[],
        needs=mirror_needs,
    ),
    DaemonOption(
        uci="insecure_registries",
        key="insecure-registries",
        parse=parse_registry,
        many=True,
        effect=Effect.RELOAD,
        default=[],
        words=True,
    ),
    DaemonOption(
        uci="max_concurrent_downloads",
        key="max-concurrent-downloads",
        parse=parse_downloads,
        effect=Effect.RELOAD,
        default=3,
    ),
    DaemonOption(
        uci="max_concurrent_uploads",
        key="max-concurrent-uploads",
        parse=parse_uploads,
        effect=Effect.RELOAD,
        default=5,
    ),
    DaemonOption(
        uci="max_download_attempts", key="max-download-attempts", parse=parse_attempts, since=(20, 10)
    ),
    # dockerd itself
    DaemonOption(
        uci="live_restore", key="live-restore", parse=parse_bool, effect=Effect.RELOAD, default=False
    ),
    DaemonOption(
        uci="shutdown_timeout", key="shutdown-timeout", parse=parse_timeout, effect=Effect.RELOAD, default=15
    ),
    DaemonOption(uci="userland_proxy", key="userland-proxy", parse=parse_bool),
    DaemonOption(uci="debug", key="debug", parse=parse_bool, effect=Effect.RELOAD, default=False),
    DaemonOption(uci="labels", key="labels", parse=parse_label, many=True, effect=Effect.RELOAD, default=[]),
    DaemonOption(
        section="proxies", uci="http_proxy", key="proxies.http-proxy", parse=parse_proxy, since=(23, 0)
    ),
    DaemonOption(
        section="proxies", uci="https_proxy", key="proxies.https-proxy", parse=parse_proxy, since=(23, 0)
    ),
    DaemonOption(
        section="proxies", uci="no_proxy", key="proxies.no-proxy", parse=parse_no_proxy, since=(23, 0)
    ),
)

# options of `globals` that are not a single key: hosts and the file are rendered separately, the last three belong to
# luci-app-dockerman
APART = frozenset({"hosts", "allow_insecure_tcp", "alt_config_file", "api_version", "ps_flags", "_luci_lan"})

# keys of dockerd 29 that are not in the table, each with the reason; a test compares both with what dockerd knows
LEFT_OUT: dict[str, str] = {
    "hosts": "rendered apart: `list hosts`",
    "tls": "section tls",
    "tlsverify": "section tls, `option verify`",
    "tlscacert": "section tls, `option cacert`",
    "tlscert": "section tls, `option cert`",
    "tlskey": "section tls, `option key`",
    "experimental": "switched on automatically if an option needs it",
    "deprecated-key-path": "dockerd ignores it",
    "allow-nondistributable-artifacts": "dockerd ignores it",
    "restart": "dockerd ignores it: `option restart` of a container section",
    "bridge": "zones and rules are made for docker0: a network section makes any other bridge",
    "default-gateway": "a network section sets a gateway",
    "default-gateway-v6": "a network section sets a gateway",
    "default-network-opts": "`list opt` of a network section",
    "network-control-plane-mtu": "of overlay networks, which need a swarm",
    "network-diagnostic-port": "a debugging aid of dockerd's developers",
    "runtimes": "OpenWrt has runc only",
    "default-runtime": "OpenWrt has runc only",
    "init-path": "dockerd finds its own docker-init",
    "userland-proxy-path": "dockerd finds its own docker-proxy",
    "default-ipc-mode": "`option ipc` of a container section",
    "cpu-rt-period": "needs cgroup v1 and a kernel that OpenWrt does not build",
    "cpu-rt-runtime": "needs cgroup v1 and a kernel that OpenWrt does not build",
    "selinux-enabled": "OpenWrt's policy has no rules for containers",
    "rootless": "procd starts dockerd as root",
    "group": "OpenWrt has no group docker; who may use the socket is root",
    "pidfile": "the agent knows dockerd by its process",
    "exec-root": "`list dockerd_args` of the agent section",
    "containerd": "dockerd starts its own",
    "containerd-namespace": "dockerd starts its own containerd",
    "containerd-plugins-namespace": "dockerd starts its own containerd",
    "cri-containerd": "for Kubernetes",
    "node-generic-resources": "for swarms",
    "swarm-default-advertise-addr": "for swarms",
    "authorization-plugins": "a plugin that fails would close the engine to the agent too",
    "cdi-spec-dirs": "OpenWrt has no drivers that write them",
    "nri-opts": "OpenWrt has no such plugins",
    "metrics-addr": "the agent has /metrics",
    "raw-logs": "the log goes to logread, which has no colours",
    "builder": "the garbage collection of a builder, which a router is not",
    "min-api-version": "the agent asks in the engine's own version",
    "host-gateway-ips": "`option host_gateway_ip`, which every version knows",
    "resolv-conf": "dockerd reads it from no file (29 refuses it): `list dns`, `list dns_opts`, `list dns_search`",
}

# by the outer key: a row may stand for one entry of a group (`features.x`)
BY_KEY = {row.key.partition(".")[0]: row for row in TABLE}


def effect_of(key: str) -> Effect:
    """What a change of this key of daemon.json requires; an unknown key requires a restart."""
    row = BY_KEY.get(key)
    return row.effect if row is not None else Effect.RESTART


def stops_containers(key: str) -> bool:
    """Whether a change of this key takes effect only if no container outlives the restart."""
    row = BY_KEY.get(key)
    return row is not None and row.stops


def identity_of(document: Document) -> dict[str, Json]:
    """The keys of a daemon.json that identify the engine, nested as in the document."""
    found: dict[str, Json] = {}
    for row in TABLE:
        if row.identity:
            put(found, row.key, value_at(document, row.key))
    return found


def value_at(document: Document, key: str) -> Json:
    """The document's value for a row's key, or for one entry of it (`entry_keys`); None if it has none."""
    outer, dot, inner = key.partition(".")
    value = document.get(outer)
    if not dot:
        return value
    if isinstance(value, list):
        return next((entry for entry in value if _entry_name(entry) == inner), None)
    return value.get(inner) if isinstance(value, dict) else None


def entry_keys(row: DaemonOption, value: Json) -> tuple[str, ...]:
    """Keys of the entries of a list or object, because each entry may be invalid by itself: `log-opts.max-size`."""
    names = map(_entry_name, value) if isinstance(value, (list, dict)) and row.many else ()
    own = {other.key for other in TABLE}
    return tuple(key for name in names if (key := f"{row.key}.{name}") not in own)


def _entry_name(entry: Json) -> str:
    return entry if isinstance(entry, str) else json.dumps(entry, sort_keys=True)


def put(document: dict[str, Json], key: str, value: Json) -> None:
    """Stores a value under a row's key of daemon.json; does nothing for None."""
    outer, dot, inner = key.partition(".")
    if value is None:
        return
    if not dot:
        document[outer] = value
        return
    group = document.get(outer)
    # create a new object, because the group may be shared with another document
    document[outer] = {**(group if isinstance(group, dict) else {}), inner: value}


def without_key(document: Document, key: str) -> dict[str, Json]:
    """The document without a row's key, or without one entry of it."""
    outer, dot, inner = key.partition(".")
    left = {name: value for name, value in document.items() if name != outer}
    group = document.get(outer)
    if dot and isinstance(group, dict):
        left[outer] = {name: value for name, value in group.items() if name != inner}
    elif dot and isinstance(group, list):
        left[outer] = [entry for entry in group if _entry_name(entry) != inner]
    return left


# Finds the option that dockerd's last words are about, if it does not start with new settings.
#
# `dockerd --validate` finds few mistakes, and does not exist before 23.0. A storage option of another driver, an
# unknown log option or an unknown user only show when dockerd starts (`agent.dockerd.change`).


_PARTS = re.compile(r"[a-z0-9]+")  # words of a key, to find it in dockerd's messages
# dockerd's words for what an option sets (moby daemon/graphdriver)
_TOPICS = {"storage-driver": "graphdriver", "storage-opts": "graphdriver"}
_SHORTEST = 3  # minimum length of a value that is significant


def suspects(document: Document, words: str) -> tuple[str, ...]:
    """Keys of the table, and of entries of lists, whose value or name appears in the words, most likely first.

    If two are equally likely, a list's entry comes before the list, and a list before the option that governs it,
    because each error about a storage option begins with the driver's name. `data-root` never counts: it is in most
    of dockerd's messages, and without it another engine would run.
    """
    said = words.lower()
    # a value counts more than a name, which may be an ordinary word
    found = {}
    for row in TABLE:
        value = value_at(document, row.key)
        if (
            row.key == "data-root"
            or value in (None, row.default)
            or not (weight := _weight(row, value, said))
        ):
            continue
        found[row.key] = (-weight, not row.many, True)
        keys = entry_keys(row, value)
        for key in keys if len(keys) > 1 else ():
            entry = {key.partition(".")[2]: value_at(document, key)} if row.pairs else value_at(document, key)
            if _is_quoted(entry, said):
                found[key] = (-weight, not row.many, False)
    return tuple(sorted(found, key=found.__getitem__))


def without(document: Document, key: str) -> dict[str, Json]:
    """The document as if UCI did not set this option, or this entry of it."""
    left = without_key(document, key)
    row = next(row for name in (key, key.partition(".")[0]) for row in TABLE if row.key == name)
    if key == "log-driver" and isinstance(options := left.get("log-opts"), dict):
        known = known_options(DEFAULT) or frozenset()
        left["log-opts"] = {name: value for name, value in options.items() if name in known}
    # the list may be empty now
    if not value_at(left, row.key):
        left = without_key(left, row.key)
        put(left, row.key, row.default)
    return left


def _is_quoted(value: Json, said: str) -> bool:
    return any(len(text) >= _SHORTEST and _has(said, text.lower()) for text in _texts(value))


def _weight(row: DaemonOption, value: Json, said: str) -> int:
    by_value = _is_quoted(value, said)
    topic = _TOPICS.get(row.key, "")
    parts = [part.rstrip("s") for part in _PARTS.findall(row.key.rpartition(".")[2]) if part != "default"]
    by_name = (topic and topic in said) or all(part in said for part in parts)
    return 2 * by_value + bool(by_name)


def _has(said: str, text: str) -> bool:
    """Whether the message contains the text, ignoring `-` and `_`: `invalid syslog facility` is about syslog-facility."""
    said, text = (re.sub("[-_]", " ", part) for part in (said, text))
    return re.search(rf"(?<![a-z0-9]){re.escape(text)}(?![a-z0-9])", said) is not None


def _texts(value: Json) -> Iterator[str]:
    """The words of a value, with `key=value` and `user:group` split."""
    match value:
        case str():
            yield value
            # dockerd's messages quote parts: the key of an option, or the user without the group. Bare numbers occur
            # in any message.
            yield from (part for part in re.split("[=:]", value) if not part.isdecimal())
        case list():
            for item in value:
                yield from _texts(item)
        case dict():
            for name, item in value.items():
                yield str(name)
                yield from _texts(item)
