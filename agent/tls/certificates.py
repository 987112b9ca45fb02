# SPDX-License-Identifier: GPL-2.0-or-later
"""dockerd's certificates in mode `auto`: our own CA, the server's pair, and bundles for clients.

The daemon's settings say for which names and how long; daemon.json then names the files. Every pass checks the
certificates (five small files) and starts the child process that makes certificates only if needed. A renewed server
pair gets a new folder, so daemon.json changes too: dockerd reads its pair only when it starts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import agent
from agent.errors import CertificateError, ClockNotSetError, ConfigError, UcidockdError
from agent.files.atomic import atomic_write, sync_directory
from agent.model.addresses import is_address, normal_names
from agent.model.dockerd.settings import CERTIFICATE_DAYS_MAX
from agent.model.quantities import clock_is_set
from agent.tls.store import CertificateStore, Index, StoredPair

logger = logging.getLogger(__name__)

# Runs `tls.maker` as a child process: JSON in on its stdin, JSON out on its stdout.


_MODULE = "agent.tls.maker"
_ROOT = Path(agent.__file__).parents[1]  # Python looks here for `-m`, wherever the agent was started
_LIMIT_S = 60.0  # a slow router takes several seconds to import `cryptography`


def ask_maker(operation: str, request: Mapping[str, object]) -> dict[str, Any]:
    """Runs one operation of `tls.maker`. Blocks, so call it in a thread if an event loop must continue.

    Raises ConfigError if `cryptography` is not installed, CertificateError for any other failure.
    """
    body = json.dumps({"op": operation, **request})
    try:
        child = subprocess.run(
            [sys.executable, "-m", _MODULE],
            input=body,
            capture_output=True,
            text=True,
            cwd=_ROOT,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise CertificateError(f"making certificates took more than {_LIMIT_S:.0f} s") from exc
    except OSError as exc:
        raise CertificateError(f"the process that makes certificates cannot be started: {exc}") from exc
    if child.returncode == 0:
        answer: dict[str, Any] = json.loads(child.stdout)
        return answer
    # the last line of a traceback is the exception, and contains no key
    reason = (child.stderr.strip().splitlines() or [""])[-1][:256]
    if "No module named 'cryptography'" in reason:
        raise ConfigError("certificates need the Python package cryptography (python3-cryptography)")
    raise CertificateError(
        f"the process that makes certificates ended with {child.returncode}"
        + (f": {reason}" if reason else "")
    )


DAY_S = 86_400
_CA_DAYS = 2 * CERTIFICATE_DAYS_MAX  # a new CA outlives every server pair with its renewal
_OLDER_KEPT = 3
_CLIENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")  # it becomes the certificate's common name


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """The files that daemon.json names. `expires` is in unix seconds.

    `reason`: why the pair was made just now, else empty. `problem`: why it should have been renewed but was not, else
    empty; the pair is then the previous one.
    """

    ca: Path
    cert: Path
    key: Path
    expires: float
    reason: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientBundle:
    """A folder for DOCKER_CERT_PATH. `expires` is in unix seconds. `server_names`: the names that dockerd's own pair
    is valid for.
    """

    name: str
    directory: Path
    ca: Path
    cert: Path
    key: Path
    expires: float
    server_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFiles:
    """The files of a bundle: file name -> PEM text, including the private key. `expires` is in unix seconds."""

    name: str
    files: Mapping[str, str] = field(repr=False)
    expires: float
    server_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Need:
    """Why something has to be made; empty if nothing has to."""

    renew_ca: str = ""
    server: str = ""


class Certificates:
    """The certificates in one directory (/etc/ucidockd/tls). Methods block, for seconds if something is made."""

    def __init__(self, directory: Path) -> None:
        self._store = CertificateStore(directory)
        self._told = ""  # the last logged problem, which may last for many passes

    def ensure_server(
        self, *, sans: tuple[str, ...], days: int, renew_days: int, now: float
    ) -> tuple[ServerIdentity, bool]:
        """Makes or renews what is missing, damaged, about to expire or not valid for `sans`; returns whether anything
        changed.

        An address that is no longer wanted stays in the certificate until the next renewal: at boot a router gets its
        addresses one after the other, and each renewal restarts dockerd.

        If the clock is not set, nothing is made and the existing pair is used. The existing pair is also used if
        making one fails; `problem` then has the reason. Raises ConfigError for invalid `sans` or days; without a
        usable pair also ClockNotSetError, CertificateError, and ConfigError without `cryptography`.
        """
        # normalized: another spelling of an address must not cause a new certificate, and so a restart of dockerd
        names = normal_names(sans)
        if not names:
            raise ConfigError(
                "a server certificate needs a name, expected at least one DNS name or IP address"
            )
        if not 1 <= days <= CERTIFICATE_DAYS_MAX:
            raise ConfigError(f"days is {days}, expected 1 to {CERTIFICATE_DAYS_MAX}")
        if not 0 <= renew_days < days:
            raise ConfigError(f"renew_days is {renew_days}, expected 0 to {days - 1} (less than days)")
        with _os_errors_translated():
            return self._ensure(names, days=days, renew_days=renew_days, now=now)

    def _ensure(
        self, names: tuple[str, ...], *, days: int, renew_days: int, now: float
    ) -> tuple[ServerIdentity, bool]:
        # A router without a battery boots in 1970, or at the time of its last shutdown: dates made then would be
        # wrong for years.
        if not clock_is_set(now) and not self._store.directory.exists():
            raise _clock_error()
        with self._store.locked():
            recorded = self._store.read_index()
            found, problems = self._find(recorded)
            need = _needed(found, names, days=days, renew_days=renew_days, now=now)
            try:
                if need == _Need() or not clock_is_set(now):
                    return self._keep(recorded, found)
                # keep earlier server pairs for a while: the last known good daemon.json may name one
                last = (recorded.server.folder,) if recorded.server is not None else ()
                there = self._store.folders("server")
                older = [folder for folder in (*last, *recorded.older) if folder in there][:_OLDER_KEPT]
                request = {"sans": names, "days": days, "now": now}
                ca, server = self._make(replace(found, older=tuple(older)), need, request)
            except (UcidockdError, OSError) as exc:
                if found.server is None:
                    raise
                reason = need.server or "tidying up"
                problem = f"dockerd's certificates could not be changed ({reason}): {exc}"
                if problem != self._told:  # log a problem once, as it may last for many passes
                    logger.error("%s; the one until %s stays", problem, _date(found.server.expires))
                    self._told = problem
                return replace(self._identity(found.server), problem=problem), False
        self._told = ""
        _report_ca(ca, found.ca, need.renew_ca, first=recorded == Index() and not problems)
        reason = "; ".join([*problems, need.server])
        logger.info(
            "dockerd's certificate is valid until %s, made because: %s", _date(server.expires), reason
        )
        return self._identity(server, reason), True

    def _keep(self, recorded: Index, found: Index) -> tuple[ServerIdentity, bool]:
        if found.server is None:
            raise _clock_error()
        if found != recorded:
            self._store.write_index(found)
        else:
            self._store.clean(found)
        return self._identity(found.server), found.server != recorded.server

    def make_client(self, name: str, target: Path, *, days: int, now: float) -> ClientBundle:
        """Writes `target`/{ca,cert,key}.pem as docker wants them in DOCKER_CERT_PATH; valid at most as long as the CA.

        Raises ConfigError for an invalid name, days or target, or if there is no CA, ClockNotSetError,
        CertificateError; `target` is then not created.
        """
        # check everything before signing: a certificate cannot be revoked
        _check_client(name, days)
        if target.exists() or target.is_symlink():
            raise ConfigError(f"{target} exists already, expected the name of a folder to be made")
        if not target.parent.is_dir():
            raise ConfigError(
                f"{target.parent} is not a folder, expected one in which {target.name} can be made"
            )
        made = self.sign_client(name, days=days, now=now)
        with _os_errors_translated():
            _write_bundle(target, made.files)
        return ClientBundle(
            name=name,
            directory=target,
            ca=target / "ca.pem",
            cert=target / "cert.pem",
            key=target / "key.pem",
            expires=made.expires,
            server_names=made.server_names,
        )

    def sign_client(self, name: str, *, days: int, now: float) -> ClientFiles:
        """A bundle that is not written to disk. Raises like `make_client`."""
        _check_client(name, days)
        # first of all: a certificate dated 1970 has expired by the time the clock is right
        if not clock_is_set(now):
            raise _clock_error()
        with _os_errors_translated():
            ca, server = self._signer(now)
            request = {"ca": _ca_request(ca), "name": name, "days": days, "now": now}
            made = ask_maker("client", request)["client"]
        return ClientFiles(
            name=name,
            files={"ca.pem": ca["ca.pem"].decode(), "cert.pem": made["cert"], "key.pem": made["key"]},
            expires=made["expires"],
            server_names=server.sans if server is not None else (),
        )

    def _signer(self, now: float) -> tuple[dict[str, bytes], StoredPair | None]:
        """The files of a CA that can sign now, and the server pair."""
        if not self._store.directory.is_dir():
            raise self._no_ca()
        with self._store.locked():
            found, problems = self._find(self._store.read_index())
            if found.ca is None:
                raise self._no_ca(problems)
            if found.ca.expires <= now:
                ended = _date(found.ca.expires)
                raise ConfigError(f"the CA ended on {ended}; the agent renews it when it applies dockerd.tls")
            return self._store.read(found.ca.folder), found.server

    def _no_ca(self, problems: Sequence[str] = ()) -> ConfigError:
        return ConfigError(
            f"there is no CA in {self._store.directory}: the agent makes it for dockerd.tls with `enabled` 1 and"
            " `mode` auto" + "".join(f"; {problem}" for problem in problems)
        )

    def _find(self, recorded: Index) -> tuple[Index, list[str]]:
        """The usable parts, and what was damaged. The files decide; the index only saves starting the child."""
        problems: list[str] = []
        ca = self._usable("ca", recorded.ca, b"", problems)
        authority = self._store.read(ca.folder)["ca.pem"] if ca is not None else b""
        server = self._usable("server", recorded.server, authority, problems)
        return replace(recorded, ca=ca, server=server), problems

    def _usable(
        self, kind: str, recorded: StoredPair | None, authority: bytes, problems: list[str]
    ) -> StoredPair | None:
        if recorded is not None and self._store.intact(recorded):
            return recorded
        # Without a record any folder may be valid. With one, only its folder: older server pairs may belong to another CA.
        folders = self._store.folders(kind)
        for folder in folders if recorded is None else [f for f in folders if f == recorded.folder]:
            content = self._store.read(folder)
            facts = _inspect(kind, content, authority)
            if not facts["problem"]:
                return self._store.part(folder, content, facts)
            bad = self._store.set_aside(folder)
            problems.append(f"{folder}: {facts['problem']} (kept as {bad})")
            logger.error("certificates: %s", problems[-1])
        return None

    def _make(
        self, found: Index, need: _Need, request: Mapping[str, object]
    ) -> tuple[StoredPair, StoredPair]:
        """Makes everything with one call of the child; writing the index puts it into effect."""
        ca, pair = found.ca, None
        if ca is not None:
            pair = _ca_request(self._store.read(ca.folder))
        made = ask_maker(
            "make", {"ca": pair, "renew_ca": bool(need.renew_ca), "ca_days": _CA_DAYS, **request}
        )
        # written before the index that names it: after a crash here, the next `clean` removes the folder
        if ca is None or need.renew_ca:
            pair = made["ca"]
            ca = self._store.add("ca", {"ca.pem": pair["cert"], "ca-key.pem": pair["key"]}, pair)
        server = made["server"]
        content = {"ca.pem": made["authority"], "cert.pem": server["cert"], "key.pem": server["key"]}
        part = self._store.add("server", content, server)
        self._store.write_index(replace(found, ca=ca, server=part))
        return ca, part

    def _identity(self, server: StoredPair, reason: str = "") -> ServerIdentity:
        folder = self._store.directory / server.folder
        return ServerIdentity(
            ca=folder / "ca.pem",
            cert=folder / "cert.pem",
            key=folder / "key.pem",
            expires=server.expires,
            reason=reason,
        )


@contextlib.contextmanager
def _os_errors_translated() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        where = exc.filename2 or exc.filename
        raise CertificateError(f"{f'{where}: ' if where else ''}{exc.strerror or exc}") from exc


def _needed(found: Index, names: tuple[str, ...], *, days: int, renew_days: int, now: float) -> _Need:
    """What has to be made, and why."""
    if found.ca is None:
        return _Need(server="there was no CA")
    # a CA must outlive the server pairs that it signs, until the next one is due
    renew_ca = _ends(found.ca, (days + renew_days) * DAY_S, now)
    if renew_ca:
        return _Need(renew_ca=renew_ca, server=f"the CA {renew_ca}")
    if found.server is None:
        return _Need(server="there was no server certificate")
    if dict(found.server.files)["ca.pem"] != dict(found.ca.files)["ca.pem"]:
        return _Need(server="the CA is another one")
    if ends := _ends(found.server, renew_days * DAY_S, now):
        return _Need(server=ends)
    missing = sorted(set(names) - set(found.server.sans))
    # at boot a router gets its addresses one after the other, and each renewal restarts dockerd: unwanted addresses
    # may stay
    gone = sorted(name for name in set(found.server.sans) - set(names) if not is_address(name))
    parts = [f"lacks {', '.join(missing)}"] if missing else []
    return _Need(server=" and ".join([*parts, *([f"still names {', '.join(gone)}"] if gone else [])]))


def _ends(part: StoredPair, margin_s: float, now: float) -> str:
    if now < part.not_before:  # the clock was ahead when the certificate was made
        return f"is valid only from {_date(part.not_before)}"
    return f"ends on {_date(part.expires)}" if part.expires - now < margin_s else ""


def _inspect(kind: str, content: Mapping[str, bytes], authority: bytes) -> dict[str, Any]:
    """The child's facts about a folder's files, with a `problem` that is empty if they are usable."""
    cert, key = ("ca.pem", "ca-key.pem") if kind == "ca" else ("cert.pem", "key.pem")
    wanted = sorted({"ca.pem", cert, key})
    if missing := [name for name in wanted if not content.get(name)]:
        return {"problem": f"{', '.join(missing)} missing or empty"}
    if kind == "ca":
        authority = content["ca.pem"]
    # the pair of an earlier CA: clients of this one do not trust it
    if content["ca.pem"] != authority:
        return {"problem": "its ca.pem is not the CA's"}
    texts = {"cert": content[cert], "key": content[key], "ca": authority}
    return ask_maker("inspect", {name: data.decode("ascii", "replace") for name, data in texts.items()})


def _ca_request(content: Mapping[str, bytes]) -> dict[str, str]:
    return {"cert": content["ca.pem"].decode(), "key": content["ca-key.pem"].decode()}


def _check_client(name: str, days: int) -> None:
    if not _CLIENT_NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:80]!r} is not a name of a client, expected 1 to 63 letters, digits and . _ @ - with a letter or"
            " digit first"
        )
    if not 1 <= days <= CERTIFICATE_DAYS_MAX:
        raise ConfigError(f"days is {days}, expected 1 to {CERTIFICATE_DAYS_MAX}")


def _write_bundle(target: Path, content: Mapping[str, str]) -> None:
    """Writes all three files or none: the folder is filled under a temporary name."""
    new = target.with_name(f".{target.name}.new-{secrets.token_hex(4)}")
    new.mkdir(mode=0o700)
    try:
        for name, text in content.items():
            atomic_write(new / name, text.encode(), mode=0o600)
        new.rename(target)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        raise
    sync_directory(target.parent)


def _report_ca(ca: StoredPair, old: StoredPair | None, renewed: str, *, first: bool) -> None:
    if old is not None and renewed:
        logger.warning(
            "the CA %s: renewed with its own key until %s; client bundles stay good until %s, make new ones in time",
            renewed,
            _date(ca.expires),
            _date(old.expires),
        )
    elif old is None and first:
        logger.info("a CA was made, valid until %s", _date(ca.expires))
    elif old is None:
        # the only case in which people have to act before anything works again
        logger.error(
            "the CA was lost and a new one made: every client needs a new bundle (ucidockd tls client)"
        )


def _clock_error() -> ClockNotSetError:
    return ClockNotSetError(
        "the clock is not set: certificates are made once it is, their dates would be wrong"
    )


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
