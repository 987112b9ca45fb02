# SPDX-License-Identifier: GPL-2.0-or-later
"""Option names of other packages and forks in /etc/config/dockerd, each with its replacement or the reason why none is
needed.

Sources: the three variants of luci-app-dockerman, the init scripts of OpenWrt's forks, dockerd's command line.
`agent.schema.validate` uses it for messages about unknown options, and `uci-defaults` for the migration.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.dockerd.table import LEFT_OUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Successor:
    """`option`: the `package.section.option` that replaces it, "" if there is none. `hint`: how, or why not."""

    option: str = ""
    hint: str = ""

    @property
    def text(self) -> str:
        """What to write instead, in one line."""
        named = f"`{self.option}`" if self.option else ""
        return f"{named} ({self.hint})" if named and self.hint else named or self.hint


_ENGINE = Successor(
    option="containers.agent.docker_host",
    hint="the engine's address, such as tcp://192.168.1.5:2376 or unix:///var/run/docker.sock",
)
_BLOCKED = Successor(
    option="dockerd.firewall.blocked_interfaces",
    hint="it lists the interfaces that may not reach containers, not those that may",
)
_ONE_PORT = Successor(
    option="containers.NAME.port", hint="publish at a LAN address, such as 192.168.1.1:8080:80"
)
_ENABLED = Successor(option="containers.agent.enabled", hint="0 keeps dockerd and all containers off")
_PROXIES = Successor(
    option="dockerd.proxies.http_proxy",
    hint="and https_proxy, in a section `config proxies`: dockerd knows no other proxy",
)
_NOTHING = Successor(hint="nothing: the agent needs no such file")

# options of a `globals` section, and dockerman's own (`config dockerman`, `config section` in /etc/config/dockerman)
SUCCESSORS: dict[str, Successor] = {
    "auto_start": _ENABLED,
    "autostart": _ENABLED,
    "enable": _ENABLED,
    "enabled": _ENABLED,
    "disabled": _ENABLED,
    "experimental": Successor(hint="nothing: it is switched on automatically if an option needs it"),
    "cgroup_driver": Successor(
        option="dockerd.globals.exec_opts",
        hint="native.cgroupdriver=cgroupfs is the default; systemd needs systemd",
    ),
    "apparmor": Successor(hint="nothing: the kernel decides"),
    "oom_score_adjust": Successor(hint="`list dockerd_args '--oom-score-adjust=...'` of the agent section"),
    "wait_path": Successor(
        option="fstab", hint="dockerd waits for the mount above data_root that /etc/config/fstab declares"
    ),
    "wait_mount": Successor(
        option="fstab", hint="dockerd waits for the mount above data_root that /etc/config/fstab declares"
    ),
    "delay": Successor(hint="nothing: dockerd waits for the disk of data_root automatically"),
    "remote_endpoint": _ENGINE,
    "remote_host": _ENGINE,
    "remote_port": _ENGINE,
    "socket_path": _ENGINE,
    "docker_host": _ENGINE,
    "wan_mode": _BLOCKED,
    "ac_allowed_interface": _BLOCKED,
    "ac_allowed_container": _ONE_PORT,
    "ac_allowed_ports": _ONE_PORT,
    "ac_allowed_ports_container": _ONE_PORT,
    "blocked_interfaces": Successor(
        option="dockerd.firewall.blocked_interfaces", hint="in a section `config firewall`"
    ),
    "extra_iptables_args": Successor(
        option="dockerd.firewall.extra_iptables_args", hint="in a section `config firewall`"
    ),
    "status_path": _NOTHING,
    "debug_path": _NOTHING,
    "daemon_hosts": Successor(option="dockerd.globals.hosts"),
    "daemon_data_root": Successor(option="dockerd.globals.data_root"),
    "daemon_bip": Successor(option="dockerd.globals.bip"),
    "daemon_log_level": Successor(option="dockerd.globals.log_level"),
    "daemon_registry_mirrors": Successor(option="dockerd.globals.registry_mirrors"),
    "daemon_ea": _ENABLED,
    # options of dockerd's command line, and their older names
    "host": Successor(option="dockerd.globals.hosts"),
    "graph": Successor(option="dockerd.globals.data_root"),
    "root": Successor(option="dockerd.globals.data_root"),
    "data_dir": Successor(option="dockerd.globals.data_root"),
    "registry_mirror": Successor(option="dockerd.globals.registry_mirrors"),
    "mirrors": Successor(option="dockerd.globals.registry_mirrors"),
    "insecure_registry": Successor(option="dockerd.globals.insecure_registries"),
    "default_address_pool": Successor(option="dockerd.globals.default_address_pools"),
    "default_ulimit": Successor(option="dockerd.globals.default_ulimits"),
    "dns_opt": Successor(option="dockerd.globals.dns_opts"),
    "exec_opt": Successor(option="dockerd.globals.exec_opts"),
    "feature": Successor(option="dockerd.globals.features"),
    "label": Successor(option="dockerd.globals.labels"),
    "log_opt": Successor(option="dockerd.globals.log_opts"),
    "storage_opt": Successor(option="dockerd.globals.storage_opts"),
    "nftables": Successor(option="dockerd.globals.firewall_backend", hint="nftables, from Docker 29 on"),
    "ipv6_nat": Successor(option="dockerd.globals.ip6tables"),
    "http_proxy": Successor(option="dockerd.proxies.http_proxy", hint="in a section `config proxies`"),
    "https_proxy": Successor(option="dockerd.proxies.https_proxy", hint="in a section `config proxies`"),
    "no_proxy": Successor(option="dockerd.proxies.no_proxy", hint="in a section `config proxies`"),
    "proxy": _PROXIES,
    "all_proxy": _PROXIES,
    "ftp_proxy": _PROXIES,
    "config_file": Successor(option="dockerd.globals.alt_config_file"),
    "resolv_conf": Successor(
        option="dockerd.globals.dns", hint="the name servers themselves; also dns_search and dns_opts"
    ),
}


def of_dockerman(word: str) -> Successor:
    """The replacement of an option in a section of luci-app-dockerman."""
    return SUCCESSORS.get(word) or Successor(hint="nothing: only luci-app-dockerman reads it")


def successor_of(word: str) -> Successor | None:
    """The replacement of an unknown option of `globals`, None if nothing is known about it either."""
    known = SUCCESSORS.get(word)
    if known is not None:
        return known
    # options that are deliberately not offered have a reason, and can be set in a daemon.json of the user's own
    reason = LEFT_OUT.get(word.replace("_", "-"))
    if reason is None:
        return None
    elsewhere = reason.startswith(("section ", "`"))
    return Successor(
        hint=reason if elsewhere else f"an alt_config_file of your own; not offered here because: {reason}"
    )
