# SPDX-License-Identifier: GPL-2.0-or-later
"""Decides about dockerd: renders daemon.json, and says what a change of it takes. Pure.

Before it comes `agent.uci.decode_daemon`, after it `agent.apply.daemon_change`. What is found on the way (an insecure
host that was refused, a key that this engine is too old for) goes to the status board as findings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from agent.model.daemon import (
    DAEMON_KEY,
    DaemonSettings,
    Document,
    Effect,
    Host,
    Json,
    Target,
    data_root,
    format_document,
)
from agent.model.daemon_table import TABLE, Version, effect_of, stops_containers
from agent.model.daemon_values import is_loopback
from agent.plan.operations import Finding

_IP6TABLES_STABLE = (27, 0)  # older engines refuse ip6tables without `experimental`


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Paths of the certificates that dockerd serves with; `cacert` is "" without client verification."""

    cacert: str
    cert: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The document, with what has to be said about it. `warnings` are for the log and `render`."""

    document: Document
    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What it takes to get from what runs to the target, and why.

    `causes` name keys, never values: proxies and log options hold passwords. `stops`: containers do not outlive the
    restart, because the change would not take hold, or because the user said `live_restore 0`.
    """

    effect: Effect
    causes: tuple[str, ...] = ()
    stops: bool = False

    @property
    def cause(self) -> str:
        return "; ".join(self.causes)


NO_CHANGE = Change(effect=Effect.NOTHING)


def render(
    settings: DaemonSettings,
    *,
    version: Version,
    socket: str,
    identity: Identity | None = None,
    unavailable: Collection[str] = (),
) -> Rendered:
    """daemon.json of these settings for an engine of that version.

    `socket` is the unix socket that the agent itself uses: it is always among the hosts. `identity` is None while there
    are no certificates (yet): then no host that needs TLS is opened. Hosts that are `unavailable` on this machine now
    are left out, since dockerd would not start for the sake of one.
    """
    document: dict[str, Json] = {}
    warnings: list[str] = []
    for row in TABLE:
        outer, _, inner = row.key.partition(".")
        value = settings.values.get(outer, row.default)
        if inner:
            value = value.get(inner) if isinstance(value, dict) else None
        if value is None:
            continue
        if version < row.since:
            needed = ".".join(map(str, row.since))
            warnings.append(
                f"{row.uci} is left out: dockerd {_dotted(version)} does not know it (since {needed})"
            )
            continue
        if inner:
            group = document.setdefault(outer, {})
            if isinstance(group, dict):
                group[inner] = value
        else:
            document[outer] = value
    if document.get("ip6tables") and version < _IP6TABLES_STABLE:
        document["experimental"] = True
        warnings.append(f"ip6tables switches on experimental features: dockerd {_dotted(version)} wants that")
    allowed, refused = _sort_out([host for host in settings.hosts if not host.is_unix], settings)
    if settings.tls is not None and identity is None:
        allowed = []
    opened = [host for host in allowed if host.text not in unavailable]
    unix = [host for host in settings.hosts if host.is_unix and _same(host.address) != _same(socket)]
    document["hosts"] = [f"unix://{socket}", *(host.text for host in (*unix, *opened))]
    document.update(_tls_keys(settings, identity))
    return Rendered(
        document=document, findings=(_insecure(settings, allowed, refused),), warnings=tuple(warnings)
    )


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def _tls_keys(settings: DaemonSettings, identity: Identity | None) -> dict[str, Json]:
    """`tlsverify` switches TLS on with any value, and without `tls: false` an open host costs 15 s at the start
    (moby cmd/dockerd, loadListeners)."""
    if settings.tls is None or identity is None:
        return {"tls": False}
    keys: dict[str, Json] = {
        "tls": True,
        "tlsverify": settings.tls.verify,
        "tlscert": identity.cert,
        "tlskey": identity.key,
    }
    return {**keys, "tlscacert": identity.cacert} if settings.tls.verify else keys


def _same(path: str) -> str:
    """/var/run is /run: one socket cannot be opened under both names."""
    return path.replace("/var/run/", "/run/", 1) if path.startswith("/var/run/") else path


def _sort_out(hosts: list[Host], settings: DaemonSettings) -> tuple[list[Host], list[Host]]:
    """TCP hosts that may be opened, and those that may not: whoever reaches one is root here."""
    if settings.allow_insecure_tcp or (settings.tls is not None and settings.tls.verify):
        return hosts, []
    return [h for h in hosts if is_loopback(h)], [h for h in hosts if not is_loopback(h)]


def _insecure(settings: DaemonSettings, allowed: list[Host], refused: list[Host]) -> Finding:
    """The condition InsecureAPI: false when nobody outside can come in without a certificate."""
    verified = settings.tls is not None and settings.tls.verify
    exposed = [] if verified else [host for host in allowed if not is_loopback(host)]
    if refused:
        return _finding(
            "Refused",
            f"{_list(refused)} not opened: whoever reaches it would be root; expected section tls with verify 1,"
            " an address of loopback, or allow_insecure_tcp 1",
        )
    if exposed:
        return _finding("Allowed", f"whoever reaches {_list(exposed)} is root here (allow_insecure_tcp)")
    return Finding(key=DAEMON_KEY, type="InsecureAPI", status=False, reason="Secure")


def _finding(reason: str, message: str) -> Finding:
    return Finding(key=DAEMON_KEY, type="InsecureAPI", status=True, reason=reason, message=message)


def _list(hosts: list[Host]) -> str:
    return ", ".join(host.text for host in hosts)


def classify(running: Target | None, target: Target) -> Change:
    """What leads from what dockerd follows to the target. `running` None: nobody knows, only a restart is sure."""
    if running is None:
        return Change(effect=Effect.RESTART, causes=("it is not known what dockerd runs with",), stops=False)
    changed = changed_keys(running.document, target.document)
    causes = [_cause(key, running.document, target.document) for key in changed]
    effects = [effect_of(key) for key in changed]
    if running.material != target.material and target.document.get("tls"):
        causes.append("the certificates are other ones")
        effects.append(Effect.RESTART)
    if running.arguments != target.arguments:
        causes.append("dockerd_args changed")
        effects.append(Effect.RESTART)
    if not effects:
        return NO_CHANGE
    if Effect.RESTART not in effects:
        return Change(effect=Effect.RELOAD, causes=tuple(causes))
    return Change(
        effect=Effect.RESTART, causes=tuple(causes), stops=any(stops_containers(key) for key in changed)
    )


def as_wished(change: Change, settings: DaemonSettings | None) -> Change:
    """`live_restore 0`, said and not only left out, means that containers stop with dockerd."""
    never = settings is not None and settings.values.get("live-restore") is False
    return replace(change, stops=True) if never and change.effect is Effect.RESTART else change


def changed_keys(old: Document, new: Document) -> tuple[str, ...]:
    """Keys whose values differ, sorted."""
    return tuple(sorted(key for key in {*old, *new} if old.get(key) != new.get(key)))


def _cause(key: str, old: Document, new: Document) -> str:
    if key not in new:
        return f"{key} removed"
    return f"{key} changed" if key in old else f"{key} set"


def minimal(target: Document, *, socket: str) -> Document:
    """The least that dockerd answers with: its socket, on the same data, with containers left alone.

    `iptables` is kept because its default would touch a firewall that the user keeps for himself.
    """
    kept = {key: target[key] for key in ("iptables", "ip6tables", "experimental") if key in target}
    return {
        **kept,
        "data-root": data_root(target),
        "hosts": [f"unix://{socket}"],
        "live-restore": True,
        "tls": False,
    }


def difference(old: bytes, new: bytes) -> str:
    """A unified diff of two daemon.json for people."""
    import difflib

    lines = difflib.unified_diff(
        old.decode(errors="replace").splitlines(),
        new.decode(errors="replace").splitlines(),
        "running",
        "wanted",
        lineterm="",
    )
    return "\n".join(lines)


def masked(document: Document) -> bytes:
    """daemon.json with what may be secret replaced: for terminals, status and logs."""
    shown = dict(document)
    for key in ("log-opts", "proxies"):
        group = shown.get(key)
        if isinstance(group, Mapping):
            shown[key] = {name: "***" if _is_secret(name, value) else value for name, value in group.items()}
    return format_document(shown)


def _is_secret(name: str, value: Json) -> bool:
    return "@" in str(value) or any(word in name.lower() for word in ("token", "password", "secret", "key"))
