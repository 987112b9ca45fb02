# SPDX-License-Identifier: GPL-2.0-or-later
"""What UCI asks dockerd for on this machine, with the certificates and addresses that exist here."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import pwd
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent.dockerd.change import Certificates
from agent.dockerd.files import DaemonFiles, material_of
from agent.dockerd.supervisor import validate
from agent.dockerd.unmanaged import Runner, version_of
from agent.errors import ClockNotSetError, DaemonError, PathAwayError, PathError, Reason, UcidockdError
from agent.files.user_paths import PATHS, file_bytes, mode_of, no_folder
from agent.model.addresses import Route
from agent.model.dockerd.settings import DaemonSettings, DaemonTarget, Document, Host, TlsSettings
from agent.model.dockerd.table import TABLE, Version, entry_keys, value_at, without_key
from agent.model.kernel_names import parse_profile
from agent.model.quantities import QuantityError
from agent.plan.daemon import GRAPH_DRIVERS, Identity, LeftOut, Rendered, render
from agent.plan.router.bridges import SUBNET_KEYS, fit

# Checks of this machine before dockerd is disturbed: certificate files, addresses, and `dockerd --validate`.


_VALIDATES = (23, 0)  # the first version with `dockerd --validate`
_ENTRIES = 16  # entries of a list that are tried one by one; each try runs dockerd
_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)
_JOURNAL = Path("/run/systemd/journal/socket")
_SYSLOGS = tuple(map(Path, ("/dev/log", "/var/run/syslog", "/var/run/log")))  # the same as in Go's log/syslog
_OLD_PLUGINS = tuple(map(Path, ("/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins")))
_IDS = re.compile("[0-9a-f]{64}")  # names of folders of plugins
_NR_OPEN = Path("/proc/sys/fs/nr_open")
_REMAPPED = "dockremap"  # the user that dockerd takes for `userns-remap` default
_CLEAR = {
    errno.EADDRINUSE: "the port is in use",
    errno.EADDRNOTAVAIL: "this machine does not have the address",
}


def checker(program: str, *, version: Callable[[], Version], run_dir: Path) -> Callable[[DaemonTarget], None]:
    """Returns the check of a target; it raises DaemonError with reason Refused."""

    def check(target: DaemonTarget) -> None:
        # `--validate` does not open the certificates: dockerd would fail on them only when it starts
        if target.document.get("tls"):
            check_certificates(
                *(str(target.document.get(key) or "") for key in ("tlscacert", "tlscert", "tlskey"))
            )
        if version() >= _VALIDATES:
            wrong = _refusal(program, target, run_dir)
            if wrong:
                raise DaemonError(f"dockerd refuses these settings: {wrong}", reason="Refused")

    return check


def refused_keys(program: str, target: DaemonTarget, run_dir: Path, version: Version) -> dict[str, str]:
    """The keys that dockerd refuses, and its words: the keys without which it would accept the settings. Usually a
    single wrong value.

    For a list, its wrong entries, or the list itself if all of them are wrong. Empty if dockerd cannot validate
    (before 23.0), or if no single key is to blame. Raises DaemonError.
    """
    wrong = _refusal(program, target, run_dir) if version >= _VALIDATES else ""
    # its message does not always name the option, so validate once without each option
    for row in TABLE if wrong else ():
        if value_at(target.document, row.key) in (None, row.default):
            continue
        rest = without_key(target.document, row.key)
        if _refusal(program, replace(target, document=rest), run_dir):
            continue
        keys = entry_keys(row, value_at(target.document, row.key))
        refused = {}
        for key in keys if len(keys) <= _ENTRIES else ():
            others = functools.reduce(without_key, set(keys) - {key}, target.document)
            if said := _refusal(program, replace(target, document=others), run_dir):
                refused[key] = f"dockerd refuses it: {said}"
        return refused if len(refused) not in (0, len(keys)) else {row.key: f"dockerd refuses it: {wrong}"}
    return {}


def refusal(program: str, file: Path, arguments: tuple[str, ...], version: Version) -> str:
    """dockerd's complaint about a daemon.json, "" if there is none or if it cannot validate (before 23.0)."""
    return validate(program, file, arguments) if version >= _VALIDATES else ""


def _refusal(program: str, target: DaemonTarget, run_dir: Path) -> str:
    """dockerd's complaint about the settings, "" if there is none."""
    try:
        # next to daemon.json, because it may hold a proxy's password and only root can read that directory
        descriptor, name = tempfile.mkstemp(prefix=".daemon-candidate-", dir=run_dir)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(target.text)
            return validate(program, Path(name), target.arguments)
        finally:
            Path(name).unlink()
    except OSError as exc:
        raise DaemonError(f"daemon.json cannot be written: {exc.strerror}", reason="StorageFull") from exc


def check_certificates(ca: str, cert: str, key: str) -> None:
    """Checks whether dockerd could serve with these files; `ca` is "" if clients are not verified. Raises DaemonError."""
    import ssl  # imported only where TLS is used

    # read with a deadline first: OpenSSL would hang on a mount that does not answer
    for path in filter(None, (ca, cert, key)):
        try:
            PATHS.ask(file_bytes, path)
        except PathError as exc:
            raise DaemonError(str(exc), reason="Refused") from exc
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as exc:
        text = f"{cert} and {key}: no PEM pair"
        if "MISMATCH" in str(exc):
            text = f"{cert} and {key}: the key does not belong to the certificate"
        raise DaemonError(text, reason="Refused") from exc
    if ca:
        try:
            context.load_verify_locations(cafile=ca)
        except ssl.SSLError as exc:
            raise DaemonError(f"{ca} holds no certificate of a CA in PEM form", reason="Refused") from exc


def _no_password() -> str:
    """An empty password: dockerd supports none either, and without this OpenSSL would ask on the terminal."""
    return ""


def unavailable_hosts(hosts: Iterable[Host]) -> dict[str, str]:
    """Hosts on which dockerd could not listen now, with the reason. TCP sockets are bound and closed at once."""
    looks = ((host.text, _no_socket(host.address) if host.is_unix else _why_not(host)) for host in hosts)
    return {text: reason for text, reason in looks if reason}


def _no_socket(path: str) -> str:
    """Why dockerd could not create its socket there: it does not create the directory, and does not replace one."""
    folder = os.path.dirname(path)
    try:
        for name, wanted in ((folder, True), (path, False)):
            mode = PATHS.ask(mode_of, name)
            if mode is None and wanted:
                return f"there is no folder {name}"
            if mode is not None and stat.S_ISDIR(mode) is not wanted:
                return f"{name} is {'not ' * wanted}a folder"
    except PathError as exc:
        return str(exc)
    return ""


def _why_not(host: Host) -> str:
    family = socket.AF_INET6 if ":" in host.address else socket.AF_INET
    try:
        with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Go does
            link.bind((host.address, host.port))
            # several sockets can bind with SO_REUSEADDR, but only one can listen; a client that connects now is
            # refused instead of hanging
            link.listen(1)
    except OSError as exc:
        return _CLEAR.get(exc.errno or 0, exc.strerror or str(exc))
    return ""


@dataclass(slots=True, kw_only=True)
class ServerIdentities:
    """Finds the certificates that dockerd presents. `names`: `list san` -> all names of this machine. `wall`: unix
    seconds."""

    certificates: Certificates | None
    names: Callable[[tuple[str, ...]], tuple[str, ...]]
    wall: Callable[[], float]
    foresees: bool = False  # name certificates that would be created as if they existed

    def get(
        self, tls: TlsSettings | None, last_good: Document, running: Document
    ) -> tuple[Identity | None, DaemonError | None]:
        """The certificates, and an error if they are not the requested ones.

        While none can be created (the clock is not set), or those of the section cannot be used, those of the last good
        configuration stay in use. `running`: the settings of a running dockerd, which has read its certificates.
        """
        if tls is None:
            return None, None
        # An invalid section must not open TCP without TLS, but if certificates exist already, TCP need not be closed.
        if tls.broken:
            kept = _kept(last_good)
            text = (
                "section tls has mistakes: the previous certificates stay in use"
                if kept
                else "section tls has mistakes: TCP hosts stay closed"
            )
            return kept, DaemonError(text, reason="Certificate")
        if not tls.auto:
            return _given(tls, last_good, running)
        if self.foresees:
            return _kept(last_good) or _TO_BE_MADE, None
        try:
            return self._make(tls)
        except UcidockdError as exc:
            kept = _kept(last_good)
            text = str(exc) if kept else f"{exc}; TCP hosts stay closed"
            reason: Reason = "ClockNotSet" if isinstance(exc, ClockNotSetError) else "Certificate"
            return kept, DaemonError(text, reason=exc.reason if isinstance(exc, DaemonError) else reason)

    def _make(self, tls: TlsSettings) -> tuple[Identity, DaemonError | None]:
        # a stage for previews has no certificates
        if self.certificates is None:
            raise DaemonError("no certificates yet", reason="Certificate")
        made, _ = self.certificates.ensure_server(
            sans=self.names(tls.san),
            days=tls.days,
            renew_days=tls.renew_days,
            now=self.wall(),
        )
        identity = Identity(cacert=str(made.ca), cert=str(made.cert), key=str(made.key))
        return identity, DaemonError(made.problem, reason="Certificate") if made.problem else None


def _given(
    tls: TlsSettings, last_good: Document, running: Document
) -> tuple[Identity | None, DaemonError | None]:
    """The files of the section. Without them only the TCP hosts are closed, not dockerd."""
    given = Identity(cacert=tls.cacert, cert=tls.cert, key=tls.key)
    if (running.get("tlscert"), running.get("tlskey")) == (given.cert, given.key):
        return given, None
    try:
        check_certificates(tls.cacert if tls.verify else "", tls.cert, tls.key)
    except DaemonError as exc:
        kept = _kept(last_good)
        if kept is None or (kept.cert, kept.key) == (given.cert, given.key):
            return None, DaemonError(f"{exc}; TCP hosts stay closed", reason="Certificate")
        return kept, DaemonError(f"{exc}; the previous certificates stay in use", reason="Certificate")
    return given, None


_TO_BE_MADE = Identity(cacert="(new)", cert="(new)", key="(new)")


def _kept(document: Mapping[str, object]) -> Identity | None:
    paths = [str(document.get(key) or "") for key in ("tlscacert", "tlscert", "tlskey")]
    try:
        if not all(path and PATHS.ask(mode_of, path) for path in paths):
            return None
    except PathError:
        return None
    return Identity(cacert=paths[0], cert=paths[1], key=paths[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    """Renders daemon.json; creates certificates if `identities` can. `routes`: the routes of this machine."""

    files: DaemonFiles
    identities: ServerIdentities
    routes: Callable[[], tuple[Route, ...]]

    def foreseeing(self) -> Renderer:
        """The same renderer for a preview: it creates no certificates."""
        return replace(self, identities=replace(self.identities, foresees=True))

    def render(
        self,
        settings: DaemonSettings,
        runner: Runner,
        *,
        running: DaemonTarget | None = None,
        probe: bool = False,
        bridges: Collection[str] = (),
        refused: Document | None = None,
        lives: bool = False,
    ) -> tuple[Rendered, DaemonError | None]:
        """The file, and an error for what is not available. Raises DaemonError.

        `probe`: whether to try hosts that `running` has not opened; nothing may be listening on them yet. `bridges`:
        devices of the networks in sections. `refused`: settings that dockerd is known to refuse, and why. `lives`:
        whether dockerd is running with `running`; then it does not read again the files that it read at its start.
        """
        good = self.files.last_good()
        read_before = running.document if lives and running is not None else {}
        last_good = good.document if good is not None else {}
        identity, trouble = self.identities.get(settings.tls, last_good, read_before)
        opened = running.document.get("hosts") if running is not None else None
        # the running dockerd itself occupies the hosts that it serves
        new = [host for host in settings.hosts if not isinstance(opened, list) or host.text not in opened]
        unavailable = unavailable_hosts(new) if probe else {}
        # read the routing table only if it matters
        has_subnets = any(settings.values.get(key) for key in SUBNET_KEYS)
        fitted = fit(settings, self.routes() if has_subnets else (), bridges)
        # running settings take precedence over last good ones: an option that is left out keeps its present value
        kept = {
            **(good.document if good is not None else {}),
            **(running.document if running is not None else {}),
        }
        root = fitted.settings.values.get("data-root") or kept.get("data-root")
        here, beyond = possible(fitted.settings)
        away = not_here(here, str(root or ""), read_before) | _files_away(here, read_before)
        remap = here.values.get("userns-remap")
        if (
            remap
            and remap != read_before.get("userns-remap")
            and (why := not_mappable(str(remap), str(root or "")))
        ):
            away["userns-remap"] = why
        # `kept` replaces what is left out, but not with the very file that is missing
        gone = [key for key in away if key != "data-root" or kept.get(key) == here.values.get(key)]
        kept = functools.reduce(without_key, gone, kept)
        rendered = render(
            here,
            version=version_of(runner.program),
            socket=runner.socket,
            identity=identity,
            unavailable=unavailable,
            refused={**fitted.refused, **away, **(refused or {})},
            kept=kept,
            prior=prior_drivers(str(root)) if root else (),
        )
        rendered = replace(
            rendered,
            left_out=(*rendered.left_out, *fitted.left_out, *beyond),
            warnings=(*rendered.warnings, *fitted.warnings),
        )
        if unavailable and trouble is None:
            text = "; ".join(f"{host} is not opened: {why}" for host, why in sorted(unavailable.items()))
            # the other hosts are opened: one address of an interface that is down must not cost the unix socket
            trouble = DaemonError(text, reason="HostUnavailable")
        return rendered, trouble


def _files_away(settings: DaemonSettings, running: Document) -> dict[str, str]:
    """Keys whose file cannot be read, with the reason: its disk may not be mounted yet."""
    named = {row.key: value_at(settings.values, row.key) for row in TABLE if row.file}
    paths = {
        key: path
        for key, path in named.items()
        if isinstance(path, str) and path.startswith("/") and path != value_at(running, key)
    }
    # skip a file that dockerd has already read: it does not read it again
    view = PATHS.view((file_bytes, path) for path in paths.values())
    found = {}
    for key, path in paths.items():
        try:
            parse_profile(view(file_bytes, path).decode(errors="replace"))
        except PathAwayError as exc:
            found[key] = f"{exc}; it is applied once the file is there"
        except PathError as exc:
            found[key] = str(exc)
        except QuantityError as exc:
            found[key] = f"{path}: {exc.wrong}, so no container could start"
    return found


def not_here(settings: DaemonSettings, root: str, running: Document) -> dict[str, str]:
    """Keys with which no container could start on this machine, whether or not dockerd itself starts."""
    found = {}
    folder = str(settings.values.get("data-root") or "")
    # a disk that does not answer does not speak against the setting: the pass waits for it
    with contextlib.suppress(PathError):
        if folder and (why := PATHS.ask(no_folder, folder)):
            found["data-root"] = why
    drivers = settings.values.get("exec-opts")
    if isinstance(drivers, list) and "native.cgroupdriver=systemd" in drivers and not _SYSTEMD.is_dir():
        found["exec-opts.native.cgroupdriver=systemd"] = (
            "it needs systemd, which does not run here: no container could start"
        )
    driver = str(settings.values.get("log-driver") or "")
    if driver != running.get("log-driver") and (why := _no_log(driver, settings, root)):
        found["log-driver"] = f"{why}: no container could start"
        if settings.values.get("log-opts"):
            found["log-opts"] = f"its entries belong to the log driver {driver}"
    return found


def _no_log(driver: str, settings: DaemonSettings, root: str) -> str:
    """Why this log driver does not work here, "" if no reason is known."""
    # dockerd starts with each of these settings, and then refuses every container
    if driver == "journald" and not _JOURNAL.exists():
        return "journald does not run here"
    options = settings.values.get("log-opts")
    address = options.get("syslog-address") if isinstance(options, dict) else None
    if driver == "syslog" and not address and not any(path.exists() for path in _SYSLOGS):
        return "no syslog listens here, and log_opts has no syslog-address"
    if ":" in driver and not _has_plugin(driver, root):
        return f"no plugin {driver} is installed (`docker plugin install`)"
    return ""


def _has_plugin(name: str, root: str) -> bool:
    """Whether a plugin of that name is in data_root (moby plugin/manager), or any plugin of the older kind exists."""
    if any(folder.is_dir() and any(folder.iterdir()) for folder in _OLD_PLUGINS):
        return True
    try:
        folder = f"{root}/plugins"
        texts = [PATHS.ask(file_bytes, f"{folder}/{each}/config.json") for each in _entries(folder, _IDS)]
    except PathError:
        return True  # not known
    return any(re.search(rb'"Name":"' + re.escape(name.encode()) + rb'"', text) for text in texts)


def _entries(folder: str, form: re.Pattern[str]) -> list[str]:
    """Names in a directory that match the pattern, empty if it does not exist. Raises PathError if that cannot be
    determined."""
    if PATHS.ask(mode_of, folder) is None:
        return []
    return [name for name in PATHS.ask(os.listdir, folder) if form.fullmatch(name)]


def possible(settings: DaemonSettings) -> tuple[DaemonSettings, tuple[LeftOut, ...]]:
    """The settings without a limit of open files above the kernel's maximum, with which no container starts (proc(5),
    nr_open)."""
    limits = settings.values.get("default-ulimits")
    files = limits.get("nofile") if isinstance(limits, dict) else None
    hard = files.get("Hard") if isinstance(files, dict) else None
    most = int(_NR_OPEN.read_text())
    # -1 means no limit, for which the engine uses the kernel's maximum
    if not isinstance(limits, dict) or not isinstance(hard, int) or 0 <= hard <= most:
        return settings, ()
    kept = {name: limit for name, limit in limits.items() if name != "nofile"}
    why = f"nofile={hard} is more than this kernel allows, and no container could start; expected at most {most}"
    values = {**settings.values, "default-ulimits": kept or None}
    return replace(settings, values=values), (LeftOut("default_ulimits", f"is not applied: {why}"),)


def not_mappable(remap: str, root: str) -> str:
    """Why dockerd would not start here with this `userns-remap` and data_root, "" if no reason is known.

    dockerd requires id ranges for the user and the group (moby user.LoadIdentityMapping), and that remapped users can
    traverse every directory above its data (moby daemon, setupDaemonRoot).
    """
    name, _, group = remap.partition(":")
    if name == "default":
        name = group = _REMAPPED
    try:
        user = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        if name == _REMAPPED and not any(map(shutil.which, ("useradd", "adduser"))):
            return (
                f"there is no user {name}, and dockerd cannot add it: this system has no useradd or adduser"
            )
        return ""  # dockerd adds its own user, and refuses any other unknown one
    groups = {group or user.pw_name, user.pw_name, str(user.pw_uid)}
    for path, names in (("/etc/subuid", {user.pw_name, str(user.pw_uid)}), ("/etc/subgid", groups)):
        if not names & with_ranges(Path(path)):
            return f"{path} has no range for {name}: add the line `{name}:100000:65536`"
    for folder in Path(root).parents if root else ():
        try:
            mode = PATHS.ask(mode_of, str(folder))
        except PathError:
            return ""
        if mode is not None and not mode & stat.S_IXOTH:
            return f"users of the range cannot pass {folder}, which holds {root}: `chmod o+x {folder}`"
    return ""


def with_ranges(path: Path) -> set[str]:
    """The users in /etc/subuid or /etc/subgid (subuid(5))."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return set()
    return {line.partition(":")[0] for line in lines if line.count(":") == 2}


def prior_drivers(root: str) -> tuple[str, ...]:
    """dockerd's graph drivers that have left data in this data_root."""
    view = PATHS.view((_is_filled, f"{root}/{name}") for name in GRAPH_DRIVERS)
    found = set()
    for name in GRAPH_DRIVERS:
        with contextlib.suppress(PathError):
            if view(_is_filled, f"{root}/{name}"):
                found.add(name)
    return tuple(sorted(found))


def _is_filled(folder: str) -> bool:
    with os.scandir(folder) as entries:
        return any(entries)


def target_of(document: Document, runner: Runner) -> DaemonTarget:
    """What a dockerd started with that file follows, in a form that can be compared."""
    return DaemonTarget(document=document, material=material_of(document), arguments=runner.arguments)
