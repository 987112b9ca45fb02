# SPDX-License-Identifier: GPL-2.0-or-later
"""THE table of dockerd's options: UCI name, key of daemon.json, check, what a change takes, default, engine versions.

Decoding, rendering and classifying go through it; a test holds it against the schemas. What SIGHUP applies was read in
moby's daemon/reload.go (20.10 to 29.7) and tried. dockerd keeps the value of most reloadable keys that vanish from its
file: these carry a `default`, which is written whenever UCI says nothing. Defaults of restart keys are those of
OpenWrt's stock /etc/init.d/dockerd.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.model.daemon import Effect, Json
from agent.model.daemon_values import (
    parse_bip,
    parse_count,
    parse_data_root,
    parse_default_ulimit,
    parse_fixed_cidr,
    parse_fixed_cidr_v6,
    parse_mirror,
    parse_mtu,
    parse_pool,
    parse_proxy,
    parse_registry,
    parse_shm_size,
    parse_timeout,
)
from agent.model.entries import parse_address
from agent.model.quantities import parse_assignment, parse_bool

Version = tuple[int, int]
Parser = Callable[[str], Json | tuple[str, Json]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOption:
    """One row. `key` with a dot is inside an object of daemon.json.

    `many` is a list; its entries are `pairs` when they make an object of daemon.json. `stops`: takes hold only when no
    container outlives the restart (moby daemon/daemon_unix.go leaves the networks of live containers alone, and
    containers of another data root would belong to nobody).
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
    stops: bool = False


def _text(text: str) -> str:
    return text


TABLE = (
    DaemonOption(uci="data_root", key="data-root", parse=parse_data_root, default="/opt/docker", stops=True),
    DaemonOption(uci="log_level", key="log-level", parse=_text, default="warn"),
    DaemonOption(uci="log_driver", key="log-driver", parse=_text),
    DaemonOption(uci="log_opts", key="log-opts", parse=parse_assignment, many=True, pairs=True),
    DaemonOption(uci="iptables", key="iptables", parse=parse_bool, default=True),
    DaemonOption(uci="ip6tables", key="ip6tables", parse=parse_bool, default=False, since=(20, 10)),
    DaemonOption(uci="bip", key="bip", parse=parse_bip, stops=True),
    DaemonOption(uci="fixed_cidr", key="fixed-cidr", parse=parse_fixed_cidr, stops=True),
    DaemonOption(uci="fixed_cidr_v6", key="fixed-cidr-v6", parse=parse_fixed_cidr_v6, stops=True),
    DaemonOption(uci="ipv6", key="ipv6", parse=parse_bool, stops=True),
    DaemonOption(uci="ip", key="ip", parse=parse_address, stops=True),
    DaemonOption(uci="storage_driver", key="storage-driver", parse=_text, stops=True),
    DaemonOption(uci="dns", key="dns", parse=parse_address, many=True),
    DaemonOption(
        uci="registry_mirrors",
        key="registry-mirrors",
        parse=parse_mirror,
        many=True,
        effect=Effect.RELOAD,
        default=[],
    ),
    DaemonOption(
        uci="insecure_registries",
        key="insecure-registries",
        parse=parse_registry,
        many=True,
        effect=Effect.RELOAD,
        default=[],
    ),
    DaemonOption(uci="default_address_pools", key="default-address-pools", parse=parse_pool, many=True),
    DaemonOption(
        uci="live_restore", key="live-restore", parse=parse_bool, effect=Effect.RELOAD, default=False
    ),
    DaemonOption(
        uci="shutdown_timeout", key="shutdown-timeout", parse=parse_timeout, effect=Effect.RELOAD, default=15
    ),
    DaemonOption(uci="userland_proxy", key="userland-proxy", parse=parse_bool),
    DaemonOption(uci="mtu", key="mtu", parse=parse_mtu, stops=True),
    DaemonOption(uci="debug", key="debug", parse=parse_bool, effect=Effect.RELOAD, default=False),
    DaemonOption(uci="labels", key="labels", parse=_text, many=True, effect=Effect.RELOAD, default=[]),
    DaemonOption(
        uci="max_concurrent_downloads",
        key="max-concurrent-downloads",
        parse=parse_count,
        effect=Effect.RELOAD,
        default=3,
    ),
    DaemonOption(
        uci="max_concurrent_uploads",
        key="max-concurrent-uploads",
        parse=parse_count,
        effect=Effect.RELOAD,
        default=5,
    ),
    DaemonOption(
        uci="default_shm_size",
        key="default-shm-size",
        parse=parse_shm_size,
        effect=Effect.RELOAD,
        default=str(64 * 1024 * 1024),
    ),
    DaemonOption(
        uci="default_ulimits", key="default-ulimits", parse=parse_default_ulimit, many=True, pairs=True
    ),
    DaemonOption(
        section="proxies", uci="http_proxy", key="proxies.http-proxy", parse=parse_proxy, since=(23, 0)
    ),
    DaemonOption(
        section="proxies", uci="https_proxy", key="proxies.https-proxy", parse=parse_proxy, since=(23, 0)
    ),
    DaemonOption(section="proxies", uci="no_proxy", key="proxies.no-proxy", parse=_text, since=(23, 0)),
)

# options of `globals` that become something else than one key: hosts and the file are rendered apart, the last three
# belong to luci-app-dockerman
APART = frozenset({"hosts", "allow_insecure_tcp", "alt_config_file", "api_version", "ps_flags", "_luci_lan"})

BY_KEY = {row.key.partition(".")[0]: row for row in TABLE}


def effect_of(key: str) -> Effect:
    """What a change of that key of daemon.json takes; a key that is not ours takes a restart."""
    row = BY_KEY.get(key)
    return row.effect if row is not None else Effect.RESTART


def stops_containers(key: str) -> bool:
    """Whether a change of that key takes hold only when containers do not outlive the restart."""
    row = BY_KEY.get(key)
    return row is not None and row.stops
