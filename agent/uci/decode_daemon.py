# SPDX-License-Identifier: GPL-2.0-or-later
"""Decodes the sections `globals`, `proxies`, `firewall` and `tls` of /etc/config/dockerd. Called by `agent.uci.decode`.

Whether certificates and addresses exist on this machine is checked when they are used; here is what text can say.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from agent.errors import ConfigError
from agent.model.daemon import DaemonSettings, FirewallRule, Host, Json, TlsSettings
from agent.model.daemon_table import TABLE, DaemonOption
from agent.model.daemon_values import parse_host
from agent.model.quantities import QuantityError, parse_int
from agent.model.server_names import normal_name
from agent.uci.reader import SectionReader

_SINGLE = ("globals", "proxies", "tls")
_DAYS_MAX = 3650  # of agent.clients.certificates; its CA has to outlive them


def decode_daemon(readers: Iterable[SectionReader]) -> DaemonSettings | None:
    """The daemon's settings, None when no section is about the daemon. Mistakes go to the readers."""
    sections = list(readers)
    if not sections:
        return None
    by_kind = {kind: _only(kind, sections) for kind in _SINGLE}
    values: dict[str, Json] = {}
    for row in TABLE:
        reader = by_kind[row.section]
        if reader is not None:
            _read(reader, row, values)
    main = by_kind["globals"]
    if main is not None:
        _check_bridge(main, values)
        _check_logging(main, values)
    return DaemonSettings(
        values=values,
        hosts=_hosts(main) if main else (),
        tls=_tls(by_kind["tls"]),
        allow_insecure_tcp=bool(main and main.flag("allow_insecure_tcp")),
        alt_config_file=(main.text("alt_config_file") if main else None) or "",
        api_version=(main.text("api_version") if main else None) or "",
        firewall=tuple(_rule(reader) for reader in sections if reader.kind == "firewall"),
    )


def _only(kind: str, readers: list[SectionReader]) -> SectionReader | None:
    mine = [reader for reader in readers if reader.kind == kind]
    for reader in mine[1:]:
        reader.report(f"there is another {kind} section", expected=f"one {kind} section")
    if mine and mine[0].section.name != kind:
        mine[0].warn(
            "OpenWrt's scripts look for this section by its name", expected=f"config {kind} '{kind}'"
        )
    for name in ("ps_flags", "_luci_lan") if kind == "globals" and mine else ():
        mine[0].text(name)  # luci-app-dockerman's
    return mine[0] if mine else None


def _read(reader: SectionReader, row: DaemonOption, values: dict[str, Json]) -> None:
    """Puts one option of the table where daemon.json has it."""
    if not row.many:
        found = reader.parsed(row.uci, row.parse)
        if found is not None and not isinstance(found, tuple):
            _put(values, row.key, found)
        return
    entries = reader.parsed_items(row.uci, row.parse)
    if not entries:
        return
    if row.pairs:
        pairs = dict(entry for _, entry in entries if isinstance(entry, tuple))
        _put(values, row.key, dict(sorted(pairs.items())))
        return
    items = [entry for _, entry in entries if not isinstance(entry, tuple)]
    _put(values, row.key, [item for at, item in enumerate(items) if item not in items[:at]])
    if row.uci == "labels":
        _check_labels(reader, [(index, str(entry)) for index, entry in entries])


def _put(values: dict[str, Json], key: str, value: Json) -> None:
    outer, dot, inner = key.partition(".")
    if not dot:
        values[key] = value
        return
    group = values.setdefault(outer, {})
    if isinstance(group, dict):
        group[inner] = value


def _check_labels(reader: SectionReader, entries: list[tuple[int, str]]) -> None:
    """dockerd does not start with two values for a label (moby daemon/config, GetConflictFreeLabels)."""
    seen: dict[str, str] = {}
    for index, text in entries:
        key, _, value = text.partition("=")
        if seen.setdefault(key, value) != value:
            reader.report(f"label {key!r} has two values", option="labels", index=index, expected="one value")


def _check_bridge(reader: SectionReader, values: dict[str, Json]) -> None:
    bip, fixed = values.get("bip"), values.get("fixed-cidr")
    if isinstance(bip, str) and isinstance(fixed, str):
        bridge = ipaddress.IPv4Interface(bip).network
        if not ipaddress.IPv4Network(fixed).subnet_of(bridge):
            reader.report(
                f"{fixed} is not inside the bridge's subnet",
                option="fixed_cidr",
                expected=f"a part of {bridge}",
            )


def _check_logging(reader: SectionReader, values: dict[str, Json]) -> None:
    if values.get("log-driver") == "none" and values.get("log-opts"):
        reader.report(
            "the driver none has no options", option="log_opts", expected="another log_driver, or no log_opts"
        )


def _hosts(reader: SectionReader) -> tuple[Host, ...]:
    """The hosts in order, each once; two on one port with a wildcard cannot both be opened."""
    found: list[Host] = []
    for index, host in reader.parsed_items("hosts", parse_host):
        other = next((seen for seen in found if _clash(seen, host)), None)
        if other is None:
            found.append(host)
        elif other.text == host.text:
            reader.warn(f"{host.text} is there twice", option="hosts", index=index, expected="each host once")
        else:
            reader.report(
                f"{host.text} and {other.text} cannot both be opened",
                option="hosts",
                index=index,
                expected="one of them",
            )
    return tuple(found)


def _clash(one: Host, two: Host) -> bool:
    if one.text == two.text:
        return True
    if one.is_unix or two.is_unix or one.port != two.port:
        return False
    first, second = ipaddress.ip_address(one.address), ipaddress.ip_address(two.address)
    # [::] takes the IPv4 port as well: Linux has net.ipv6.bindv6only off and dockerd asks for nothing else
    return any(
        wide.is_unspecified and (wide.version == 6 or wide.version == other.version)
        for wide, other in ((first, second), (second, first))
    )


def _tls(reader: SectionReader | None) -> TlsSettings | None:
    if reader is None:
        return None
    base = TlsSettings()
    verify, mode, enabled = reader.flag("verify"), reader.text("mode"), reader.flag("enabled")
    settings = TlsSettings(
        verify=base.verify if verify is None else verify,
        auto=mode != "files",
        cacert=reader.text("cacert") or "",
        cert=reader.text("cert") or "",
        key=reader.text("key") or "",
        san=reader.values("san", _name),
        days=reader.parsed("days", _days) or base.days,
        renew_days=reader.parsed("renew_days", _days) or base.renew_days,
    )
    if enabled is False:
        return None
    _check_tls(reader, settings)
    return settings


def _name(text: str) -> str:
    try:
        return normal_name(text)
    except ConfigError:
        raise QuantityError(f"{text!r} is no name for a certificate", "a DNS name or an IP address") from None


def _days(text: str) -> int:
    return parse_int(text, minimum=1, maximum=_DAYS_MAX)


def _check_tls(reader: SectionReader, settings: TlsSettings) -> None:
    files = {"cacert": settings.cacert, "cert": settings.cert, "key": settings.key}
    if settings.auto:
        for name in sorted(name for name, path in files.items() if path):
            reader.report(
                "with mode auto the certificates are the agent's",
                option=name,
                expected="mode files, or no file",
            )
        if settings.renew_days >= settings.days:
            reader.report(
                "it would be renewed at once, over and over",
                option="renew_days",
                expected=f"less than days ({settings.days})",
            )
        return
    needed = ("cacert", "cert", "key") if settings.verify else ("cert", "key")
    for name in needed:
        if not files[name] and not reader.has(name):
            reader.report("is missing", option=name, expected="the path of a PEM file, or mode auto")


def _rule(reader: SectionReader) -> FirewallRule:
    return FirewallRule(
        device=reader.text("device") or "docker0",
        blocked_interfaces=reader.texts("blocked_interfaces"),
        extra_iptables_args=reader.text("extra_iptables_args") or "",
        enforce=reader.flag("enforce") or False,
    )
