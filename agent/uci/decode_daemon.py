# SPDX-License-Identifier: GPL-2.0-or-later
"""Decodes the sections `globals`, `proxies`, `firewall` and `tls` of /etc/config/dockerd. Called by `agent.uci.decode`.

Only the text is checked here; whether certificates and addresses exist on this machine is checked when they are used.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.errors import ConfigError
from agent.model.addresses import normal_name
from agent.model.dockerd import log_drivers
from agent.model.dockerd.settings import (
    CERTIFICATE_DAYS_MAX,
    DEFAULT_BRIDGE,
    DaemonSettings,
    FirewallRule,
    Host,
    Json,
    TlsSettings,
    parse_extra,
)
from agent.model.dockerd.table import TABLE, DaemonOption, put, value_at
from agent.model.dockerd.values import Discouraged, parse_host, split_pools, split_urls
from agent.model.quantities import QuantityError, parse_int
from agent.schema.validate import properties
from agent.uci.reader import SectionReader
from agent.uci.syntax import Option, Section

_SINGLE = ("globals", "proxies", "tls")  # dockerd has one of each: a second section is a mistake
_STORE = "features.containerd-snapshotter"
# lists whose entries never contain a space or comma, so several values in one entry can be split
_WORDS = frozenset(
    {
        *((row.section, row.uci) for row in TABLE if row.words),
        ("globals", "hosts"),
        ("tls", "san"),
        ("firewall", "blocked_interfaces"),
    }
)
_SPLIT: dict[str, Callable[[str], Sequence[str]]] = {
    "registry_mirrors": split_urls,
    "default_address_pools": split_pools,
    "log_opts": log_drivers.split_log_opts,
}
# spaces, and invisible characters that web pages and editors add
_BLANK = string.whitespace + "\u00a0\u2000\u2001\u2002\u2003\u2009\u202f\u3000\u200b\u200c\u200d\u2060\ufeff"
_INTERFACE = re.compile(r"[A-Za-z0-9_.:@+-]+", re.ASCII)
# pairs that word processors and phones put around values
_QUOTES = frozenset(zip("\"'‘“”„«「", "\"'’””“»」", strict=True))
_JSON = frozenset("[{")  # the beginning of values that people copy from a daemon.json
_BETWEEN = re.compile(r"[\s,;，；、]+")
_ONE = {
    "registry_mirrors": "mirror",
    "hosts": "host",
    "dns": "name server",
    "insecure_registries": "registry",
}
_ALIASES = {("log_level", "warning"): "warn"}  # moby accepted it up to 28


@dataclass(frozen=True, slots=True)
class Note:
    """A value that is accepted, its place after tidying, and how it should be written."""

    option: str
    index: int | None
    wrong: str
    better: str


def tidied(section: Section) -> tuple[Section, tuple[Note, ...]]:
    """The section in the schema's form, with notes on values in other forms that the stock script accepts.

    These are: spaces around values, several values in one entry, a single value as a `list`, and upper case in words.
    """
    notes: list[Note] = []
    options = tuple(_tidied(section.type, option, notes) for option in section.options)
    return replace(section, options=options), tuple(notes)


def _tidied(kind: str, option: Option, notes: list[Note]) -> Option:
    # unknown options are reported elsewhere, with the user's own text
    schema = properties(kind).get(option.name)
    if schema is None:
        return option
    given = (option.value,) if isinstance(option.value, str) else option.value
    entries: list[str] = []
    lines: list[int] = []
    for index, text in enumerate(given):
        bare = text.strip(_BLANK)
        # people copy values from a daemon.json or a web page with their quotation marks; none of the options has
        # values with quotes
        if len(bare) > 2 and (bare[0], bare[-1]) in _QUOTES:
            bare = bare[1:-1].strip(_BLANK)
        parts = [part.strip() for part in _split(kind, option.name, bare)]
        if bare != text:
            what = "a space" if bare == text.strip(_BLANK) else "a quotation mark"
            notes.append(
                Note(option.name, len(entries), f"starts or ends with {what}", "the value without it")
            )
        if len(parts) > 1:
            one = _ONE.get(option.name, "value")
            notes.append(
                Note(option.name, len(entries), f"{len(parts)} values in one entry", f"one {one} per entry")
            )
        elif parts and parts[0] != bare and bare[:1] in _JSON:
            notes.append(Note(option.name, len(entries), "is written as in a daemon.json", parts[0]))
        # drop an entry of separators only: dockerd would refuse an empty string
        entries += [part for part in parts if part]
        # entries split from one line keep its line number, so that messages point to what the user sees in the file
        line = option.lines[min(index, len(option.lines) - 1)] if option.lines else 0
        lines += [line] * (len(entries) - len(lines))
    if schema.get("type") == "array":
        return replace(option, value=tuple(entries), lines=tuple(lines))
    # several values for a scalar stay as they are: the schema reports them, and the user has to decide
    if len(entries) != 1:
        return option
    if not isinstance(option.value, str):
        notes.append(Note(option.name, None, "is a list", f"option {option.name}"))
    return replace(option, value=_word(option.name, entries[0], schema, notes), lines=tuple(lines))


def _split(kind: str, name: str, text: str) -> Sequence[str]:
    # only for lists: elsewhere a bracket may be part of the value, as in an IPv6 address
    if text[:1] in _JSON and properties(kind)[name].get("type") == "array":
        with contextlib.suppress(ValueError, RecursionError):
            return _of_json(json.loads(text))
    if kind == "globals" and name in _SPLIT:
        # an empty result means another form: pass the whole value to the parser, which reports it
        return _SPLIT[name](text) or [text]
    return _BETWEEN.split(text.strip(",;，；、")) if (kind, name) in _WORDS else [text]


def _of_json(value: Json) -> list[str]:
    """Converts a daemon.json value to entries of UCI: `["a", "b"]`, `{"max-size": "10m"}`, a list of pools.

    Raises ValueError if the value has no such form.
    """
    match value:
        case str() | int():  # bool is a subclass of int
            return [json.dumps(value) if isinstance(value, bool) else str(value)]
        case list():
            return [entry for item in value for entry in _of_json(item)]
        case {"base": str() as base, "size": int() as size}:
            return [f"{base},{size}"]
        case {"Soft": int() as soft, "Hard": int() as hard}:
            return [f"{soft}:{hard}"]  # a limit of `default-ulimits`
        case dict():
            return [f"{name}={entry}" for name, item in value.items() for entry in _of_json(item)]
    raise ValueError


def _word(name: str, text: str, schema: Mapping[str, Any], notes: list[Note]) -> str:
    """Corrects the case of an enumerated value; dockerd accepts upper case for most of them."""
    choices = schema.get("enum", ())
    # dockerd ignores case, and some values had other names in older releases. An unknown value stays, and the schema
    # refuses it.
    word = _ALIASES.get((name, text.lower()), text.lower())
    if text in choices or word not in choices:
        return text
    notes.append(Note(name, None, f"{text!r} is a non-standard form", word))
    return word


def decode_daemon(readers: Iterable[SectionReader]) -> DaemonSettings | None:
    """The daemon's settings, None if no section is about the daemon. Mistakes go to the readers.

    Invalid options are left out; their keys are in `DaemonSettings.left_out`.
    """
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
    hosts = _hosts(main) if main else ()
    # dockerd starts with all of its settings or not at all: remove conflicting settings here, and report them
    if main is not None:
        _check_bridge(main, values)
        _check_pools(main, values)
        _check_logging(main, values)
        _check_exclusive(main, values)
        main.warn_of_loopback("dns")
    return DaemonSettings(
        values=values,
        # an invalid key is not an unset key: dockerd keeps the value that it runs with
        left_out=frozenset(
            row.key
            for row in TABLE
            if (reader := by_kind[row.section]) is not None
            and reader.is_refused(row.uci)
            and value_at(values, row.key) is None
        ),
        hosts=hosts,
        tls=_tls(by_kind["tls"]),
        allow_insecure_tcp=bool(main and main.flag("allow_insecure_tcp")),
        alt_config_file=(main.text("alt_config_file") if main else None) or "",
        api_version=(main.text("api_version") if main else None) or "",
        firewall=tuple(_rule(reader, values) for reader in sections if reader.kind == "firewall"),
    )


def _only(kind: str, readers: list[SectionReader]) -> SectionReader | None:
    """The section that counts: as in the stock script the one named like its type, otherwise the first."""
    mine = [reader for reader in readers if reader.kind == kind]
    mine.sort(key=lambda reader: reader.section.name != kind)
    for reader in mine[1:]:
        reader.report(f"there is already a {kind} section", expected=f"one {kind} section")
    if mine and mine[0].section.name != kind:
        mine[0].warn(
            "OpenWrt's scripts look for this section by its name", expected=f"config {kind} '{kind}'"
        )
    # read them, so that they are not reported as unknown: the file is shared with luci-app-dockerman
    for name in ("ps_flags", "_luci_lan") if kind == "globals" and mine else ():
        mine[0].text(name)  # luci-app-dockerman's
    return mine[0] if mine else None


def _read(reader: SectionReader, row: DaemonOption, values: dict[str, Json]) -> None:
    """Stores one option of the table under its daemon.json key."""
    if not row.many:
        found = _plain(reader, row.uci, None, reader.parsed(row.uci, row.parse))
        # tuples and Hosts need conversion: `hosts` and pairs are read elsewhere
        if not isinstance(found, (tuple, Host)):
            put(values, row.key, found)
        return
    entries = [
        (index, _plain(reader, row.uci, index, found))
        for index, found in reader.parsed_items(row.uci, row.parse)
    ]
    if not entries:
        return
    if row.pairs:
        # other options may belong to the same object: `containerd_snapshotter` is one of the `features`
        pairs: dict[str, Json] = {}
        for index, entry in entries:
            if isinstance(entry, tuple):
                if pairs.setdefault(entry[0], entry[1]) != entry[1]:
                    reader.warn(
                        f"{entry[0]} is there with another value: the last one counts",
                        option=row.uci,
                        index=index,
                        expected="each once",
                    )
                pairs[entry[0]] = entry[1]
        group = values.get(row.key)
        put(values, row.key, {**(group if isinstance(group, dict) else {}), **dict(sorted(pairs.items()))})
        return
    if row.uci == "labels":
        entries = _without_conflicts(reader, entries)
    items: list[Json] = [entry for _, entry in entries if not isinstance(entry, (tuple, Host))]
    # a duplicate has no effect, but would look like a change of the file
    put(values, row.key, [item for at, item in enumerate(items) if item not in items[:at]])


def _plain(
    reader: SectionReader, option: str, index: int | None, found: Json | tuple[str, Json] | Host | Discouraged
) -> Json | tuple[str, Json] | Host:
    """The value itself. A `Discouraged` one is accepted with a warning that says how to write it."""
    if not isinstance(found, Discouraged):
        return found
    reader.warn(found.wrong, option=option, index=index, expected=found.better)
    return found.value


def _without_conflicts(
    reader: SectionReader, entries: list[tuple[int, Json | tuple[str, Json] | Host]]
) -> list[tuple[int, Json | tuple[str, Json] | Host]]:
    """Removes conflicting labels: dockerd does not start with two values for a label (moby daemon/config,
    GetConflictFreeLabels)."""
    seen: dict[str, str] = {}
    kept = []
    for index, text in entries:
        key, _, value = str(text).partition("=")
        if seen.setdefault(key, value) == value:
            kept.append((index, text))
        else:
            reader.report(f"label {key!r} has two values", option="labels", index=index, expected="one value")
    return kept


def _check_bridge(reader: SectionReader, values: dict[str, Json]) -> None:
    for bip, fixed, option in (
        ("bip", "fixed-cidr", "fixed_cidr"),
        ("bip6", "fixed-cidr-v6", "fixed_cidr_v6"),
    ):
        address, part = values.get(bip), values.get(fixed)
        if not isinstance(part, str):
            continue
        subnet = ipaddress.ip_network(part)
        # the meaning of `fixed-cidr` without `bip` changed between versions; with both, all versions agree
        if not isinstance(address, str):
            if bip == "bip" and not reader.is_refused("bip"):
                reader.warn(
                    "without bip docker0 keeps its own subnet up to Docker 27, and takes this one from 28 on",
                    option=option,
                    expected=f"`option bip '{next(iter(subnet.hosts()))}/{subnet.prefixlen}'` beside it,"
                    " or default_address_pools for the networks of containers",
                )
            continue
        bridge = ipaddress.ip_interface(address).network
        if subnet.version == bridge.version and not (
            subnet.network_address in bridge and subnet.prefixlen >= bridge.prefixlen
        ):
            reader.report(
                f"{part} is not inside the bridge's subnet", option=option, expected=f"a part of {bridge}"
            )
            # without this key the rest can be applied; with it dockerd does not start
            del values[fixed]


def _check_pools(reader: SectionReader, values: dict[str, Json]) -> None:
    """Requires an IPv4 pool: without one for docker0 dockerd does not start (29, tested), and each network has an IPv4
    subnet."""
    pools = values.get("default-address-pools")
    if isinstance(pools, list) and all(
        ":" in str(pool) for pool in (p.get("base") for p in pools if isinstance(p, dict))
    ):
        reader.report(
            "there is no pool of IPv4 addresses",
            option="default_address_pools",
            expected="one beside it such as 10.10.0.0/16,24",
        )
        del values["default-address-pools"]


def _check_logging(reader: SectionReader, values: dict[str, Json]) -> None:
    if values.get("log-driver") == "none" and values.get("log-opts"):
        reader.report(
            "the driver none has no options", option="log_opts", expected="another log_driver, or no log_opts"
        )
        del values["log-opts"]
    driver, options = str(values.get("log-driver") or log_drivers.DEFAULT), values.get("log-opts")
    given = {name: str(value) for name, value in options.items()} if isinstance(options, dict) else {}
    missing = log_drivers.missing_options(driver, given)
    if missing:
        reader.report(
            f"{driver} needs {' and '.join(missing)}: no container could be created",
            option="log_driver",
            expected=f"`list log_opts '{missing[0]}=...'` beside it",
        )
        # without its driver the options would apply to json-file, which refuses most of them
        del values["log-driver"]
        if values.pop("log-opts", None):
            reader.report(
                f"belong to the log driver {driver}, which is not applied",
                option="log_opts",
                expected="the missing options of the driver",
            )
        return
    if reader.is_refused("log_driver"):
        return  # the options may fit the intended driver, which is not known
    places = {text.partition("=")[0].strip(): index for index, text in reader.items("log_opts")}
    for name, wrong, expected in tuple(log_drivers.wrong_options(driver, given)):
        reader.report(wrong, option="log_opts", index=places.get(name), expected=expected)
        del given[name]
    values.pop("log-opts", None)
    put(values, "log-opts", {**given} or None)


def _check_exclusive(reader: SectionReader, values: dict[str, Json]) -> None:
    """Removes pairs of settings with which dockerd does not start."""
    # moby daemon/daemon_unix.go, verifyDaemonSettings
    if values.get("icc") is False and values.get("iptables") is False:
        reader.report(
            "without iptables nothing separates containers", option="icc", expected="iptables 1, or icc 1"
        )
        del values["icc"]
    # moby cmd/dockerd, setPlatformOptions
    if values.get("userns-remap") and value_at(values, _STORE) is True:
        reader.report(
            "containerd's image store cannot be combined with userns_remap",
            option="containerd_snapshotter" if reader.has("containerd_snapshotter") else "features",
            expected="only one of them",
        )
        group = values[_STORE.partition(".")[0]]
        if isinstance(group, dict):
            group.pop(_STORE.partition(".")[2])


def _hosts(reader: SectionReader) -> tuple[Host, ...]:
    """The hosts in order, without duplicates. Two hosts on the same port, one of them a wildcard, cannot both be opened."""
    found: list[Host] = []
    # dockerd ends if it cannot open one of its hosts, so the second of two conflicting hosts is left out
    for index, given in reader.parsed_items("hosts", parse_host):
        host = _plain(reader, "hosts", index, given)
        if not isinstance(host, Host):
            continue
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
    # [::] also takes the IPv4 port: Linux has net.ipv6.bindv6only off, and dockerd does not change it
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
    # if the certificates are not certain to be the intended ones, no new host is opened
    whole = not any(reader.is_refused(name) for name in ("mode", "cacert", "cert", "key"))
    return settings if whole else replace(settings, broken=True)


def _name(text: str) -> str:
    try:
        return normal_name(text)
    except ConfigError:
        raise QuantityError(
            f"{text!r} is not a name for a certificate", "a DNS name or an IP address"
        ) from None


def _days(text: str) -> int:
    return parse_int(text, minimum=1, maximum=CERTIFICATE_DAYS_MAX)


def _check_tls(reader: SectionReader, settings: TlsSettings) -> None:
    files = {"cacert": settings.cacert, "cert": settings.cert, "key": settings.key}
    if settings.auto:
        for name in sorted(name for name, path in files.items() if path):
            reader.report(
                "with mode auto the certificates are the agent's",
                option=name,
                expected="mode files, or no file",
            )
        # each renewal restarts dockerd, which would happen in every pass
        if settings.renew_days >= settings.days:
            reader.report(
                "the certificate would be renewed again and again",
                option="renew_days",
                expected=f"less than days ({settings.days})",
            )
        return
    needed = ("cacert", "cert", "key") if settings.verify else ("cert", "key")
    for name in needed:
        if not files[name] and not reader.has(name):
            reader.report("is missing", option=name, expected="the path of a PEM file, or mode auto")


def _rule(reader: SectionReader, values: dict[str, Json]) -> FirewallRule:
    rule = FirewallRule(
        device=reader.text("device") or DEFAULT_BRIDGE,
        blocked_interfaces=reader.texts("blocked_interfaces"),
        extra_iptables_args=reader.text("extra_iptables_args") or "",
        enforce=reader.flag("enforce") or False,
    )
    # only warnings: the section still blocks what it can, and rules that are in force stay
    try:
        parse_extra(rule.extra_iptables_args)
    except ConfigError as exc:
        wrong, _, expected = str(exc).partition(": ")[2].partition(", expected ")
        reader.warn(f"{wrong}, so nothing is blocked", option="extra_iptables_args", expected=expected)
    for index, name in reader.items("blocked_interfaces"):
        if not _INTERFACE.fullmatch(name):
            reader.warn(
                f"{name!r} is not the name of an interface or device: nothing is blocked for it",
                option="blocked_interfaces",
                index=index,
                expected="an interface such as wan",
            )
    # with `enforce` we make the rules ourselves, without dockerd's chains
    if rule.blocked_interfaces and values.get("iptables") is False and not rule.enforce:
        reader.warn(
            "nothing is blocked while dockerd makes no rules (`iptables 0`)",
            option="blocked_interfaces",
            expected="`option enforce '1'` in this section to block anyway",
        )
    return rule
