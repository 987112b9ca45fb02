# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks registries (OCI distribution specification) which image a tag names, by HEAD, and how large an image is, by GET.

Registries are reached as dockerd reaches them: through its mirrors and proxies, without TLS if it lists them as
insecure, and with the certificates in /etc/docker/certs.d. A login is sent to its own registry and to the authorization
server that this registry names, never to the target of a redirect. Use one client per thread and per round of questions.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlencode, urljoin, urlsplit

import urllib3
import urllib3.exceptions

from agent.apply.images import auth_for
from agent.apply.ports import Engine
from agent.engine.transport import CallDeadline, TimedTlsSocket, keep_pools_in_time
from agent.errors import PathError, UcidockdError
from agent.files.user_paths import PATHS, file_stamp
from agent.model.resources import Desired, RegistryAuth
from agent.model.updates import HUB, Answer, ImageName
from agent.wire import registry as wire

CALL_S = 20.0  # for one request, with its answer
_CONNECT_S = 10.0  # of that, to connect: an address that drops packets must not use it all
_BODY_LIMIT = 4 * 1024 * 1024  # the largest index or manifest (OCI distribution specification)
_TOKEN_LIMIT = 256 * 1024
_REDIRECTS = 5  # in a row
_HUB_HOST = "registry-1.docker.io"
_CERTIFICATES = Path("/etc/docker/certs.d")
# an insecure registry is the user's choice; urllib3 would log its warning at each request
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
_MASKED = "xxxxx"  # what the engine shows instead of a proxy's password

Value = TypeVar("Value")
Login = Callable[[str], RegistryAuth | None]  # takes a registry's host


class RegistryError(UcidockdError):
    """A registry could not be asked. The message names the registry and the reason."""

    code = "registry"


class RateLimitedError(RegistryError):
    """The registry must not be asked before `until` (unix seconds)."""

    code = "rate-limited"

    def __init__(self, message: str, *, until: float) -> None:
        super().__init__(message)
        self.until = until


class RegistryAwayError(RegistryError):
    """No connection: other images of that registry need not be tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """How dockerd reaches registries. `proxies` maps the scheme of a request to a proxy's URL, which may contain a
    password.
    """

    mirrors: tuple[str, ...] = ()  # of Docker Hub, as URLs
    insecure: frozenset[str] = frozenset()  # hosts
    insecure_networks: tuple[str, ...] = ()
    proxies: dict[str, str] = field(default_factory=dict, repr=False)
    no_proxy: tuple[str, ...] = ()
    certificates: Path | None = _CERTIFICATES  # None if the engine is on another machine


def registry_config(
    info: dict[str, Any], proxies: dict[str, str] | None = None, *, is_here: bool = True
) -> RegistryConfig:
    """From `GET /info`. `proxies` are UCI's (`http-proxy`, `https-proxy`, `no-proxy`), because the engine masks the
    passwords in its own. `is_here` tells whether the engine is on this machine.
    """
    config = info.get("RegistryConfig") or {}
    indexes = config.get("IndexConfigs") or {}
    own = proxies or {}
    # UCI first, because the engine masks the password in its own
    http, https = (
        own.get(f"{s}-proxy") or str(info.get(f"{s.title()}Proxy") or "") for s in ("http", "https")
    )
    names = own.get("no-proxy") or str(info.get("NoProxy") or "")
    return RegistryConfig(
        mirrors=tuple(config.get("Mirrors") or ()),
        insecure=frozenset(name for name, index in indexes.items() if not index.get("Secure", True)),
        insecure_networks=tuple(config.get("InsecureRegistryCIDRs") or ()),
        proxies={scheme: url for scheme, url in (("http", http), ("https", https)) if url},
        no_proxy=tuple(name.strip() for name in names.split(",") if name.strip()),
        certificates=_CERTIFICATES if is_here else None,
    )


def registry_client(engine: Engine, desired: Desired, *, is_here: bool) -> RegistryClient:
    """A client that reaches registries as dockerd does, with UCI's logins. `is_here`: the engine is on this machine.

    Raises EngineError.
    """
    values = desired.daemon.values.get("proxies") if desired.daemon is not None else None
    proxies = {str(name): str(value) for name, value in values.items()} if isinstance(values, dict) else {}
    config = registry_config(engine.info(), proxies, is_here=is_here)
    return RegistryClient(config, lambda host: auth_for(f"{host}/image", desired.auths))


@dataclass(slots=True)
class _Endpoint:
    """One host to ask. `base` is its URL without a trailing slash; `schemes` lists those still to try."""

    registry: str  # the registry whose login and certificates are used
    schemes: list[str]
    rest: str  # host, and the path of a mirror
    insecure: bool  # its certificate is not checked
    challenge: wire.Challenge | None = None
    tokens: dict[str, str] = field(default_factory=dict, repr=False)  # by repository

    @property
    def base(self) -> str:
        return f"{self.schemes[0]}://{self.rest}"


class _Reply:
    """Status, headers (names in lower case), body, and whether it came from the target of a redirect."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes, *, moved: bool) -> None:
        self.status, self.headers, self.body, self.moved = status, headers, body, moved


class RegistryClient:
    """`login` returns a host's login. `wall` returns unix seconds. `limits` collects the rate limits that registries
    report.
    """

    def __init__(
        self, config: RegistryConfig, login: Login, *, wall: Callable[[], float] = time.time
    ) -> None:
        self.limits: dict[str, wire.Limit] = {}
        self._config, self._login, self._wall = config, login, wall
        self._deadline = CallDeadline()
        # registry -> where it can be reached: its mirrors first
        self._endpoints: dict[str, list[_Endpoint]] = {}
        self._managers: dict[tuple[str, str], Any] = {}  # (proxy, registry) -> its connections

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *error: object) -> None:
        for manager in self._managers.values():
            manager.clear()

    def ask(self, name: ImageName) -> Answer:
        """Which image a tag names, by HEAD, which registries do not count as a pull. Raises RegistryError."""
        endpoint, reply = self._reply("HEAD", name, f"manifests/{name.tag}")
        digest = wire.digest_of(reply.headers)
        if reply.status == 200 and digest:
            return Answer(digest=digest, is_index=wire.is_index(reply.headers))
        if reply.status in (200, 405):  # the registry does not support HEAD, or sends no digest in its answer
            reply = self._checked(name, self._send(endpoint, "GET", name, f"manifests/{name.tag}"))
            return Answer(digest=wire.sha256(reply.body), is_index=wire.is_index(reply.headers))
        raise self._refused(name, reply)

    def members(self, name: ImageName, digest: str) -> tuple[str, ...]:
        """The digests of the manifests in an index. Raises RegistryError."""
        body = self._get(name, f"manifests/{digest}")
        return self._formed(name, lambda: wire.members(body))

    def layers(self, name: ImageName, platform: str) -> tuple[str, tuple[tuple[str, int, str], ...]]:
        """The digest that the name has now, and of each layer that a pull would fetch its digest, size (compressed, in
        bytes) and diff id, lowest first.

        `platform` is os/architecture[/variant]. Registries count this as a pull. Raises RegistryError, also if the
        registry does not have the information.
        """
        reply = self._checked(name, self._reply("GET", name, f"manifests/{name.digest or name.tag}")[1])
        body = reply.body
        names = name.digest or wire.digest_of(reply.headers) or wire.sha256(body)
        if wire.is_index(reply.headers):
            found = self._formed(name, lambda: wire.member_for(body, platform))
            if not found:
                raise RegistryError(f"{name.registry} has no {name.repository} for {platform}")
            body = self._get(name, f"manifests/{found}")
        manifest = self._formed(name, lambda: wire.manifest(body))
        digest, size = manifest.config
        # stated by the manifest, before a body of that size is read
        if size > _BODY_LIMIT:
            raise RegistryError(f"{name.registry} has an image config of {size} bytes")
        ids = self._formed(name, lambda: wire.diff_ids(self._get(name, f"blobs/{digest}")))
        # each layer needs its diff id, because layers that the engine already has are found by it
        if len(ids) != len(manifest.layers):
            raise RegistryError(f"{name.registry} has a manifest and a config that differ")
        return names, tuple((*layer, diff_id) for layer, diff_id in zip(manifest.layers, ids, strict=True))

    def _get(self, name: ImageName, path: str) -> bytes:
        return self._checked(name, self._reply("GET", name, path)[1]).body

    def _formed(self, name: ImageName, read: Callable[[], Value]) -> Value:
        try:
            return read()
        except wire.RegistryFormatError as exc:
            raise RegistryError(f"{name.registry}: {exc}") from exc

    def _checked(self, name: ImageName, reply: _Reply) -> _Reply:
        if reply.status != 200:
            raise self._refused(name, reply)
        return reply

    def _refused(self, name: ImageName, reply: _Reply) -> RegistryError:
        code = wire.error_code(reply.body)
        tail = f" ({code})" if code else ""
        # registries give the same answer for a wrong login and for an image that does not exist
        if reply.status in (401, 403):
            known = self._login(name.registry) is not None
            why = "refuses the login of `config auth`" if known else "requires a login, or has no such image"
            return RegistryError(f"{name.registry} {why}{tail}")
        if reply.status == 404:
            return RegistryError(f"{name.registry} has no {name.repository}:{name.tag or name.digest}{tail}")
        return RegistryError(f"{name.registry} answers with status {reply.status}{tail}")

    def _reply(self, method: str, name: ImageName, path: str) -> tuple[_Endpoint, _Reply]:
        """The reply of the first endpoint that has it. Mirrors come before Docker Hub, whose reply is final."""
        endpoints = self._endpoints_of(name.registry)
        # a mirror that is down, full or outdated must not hide an update
        for endpoint in endpoints[:-1]:
            try:
                reply = self._send(endpoint, method, name, path)
            except RegistryError:
                continue
            if reply.status == 200:
                return endpoint, reply
        return endpoints[-1], self._send(endpoints[-1], method, name, path)

    def _endpoints_of(self, registry: str) -> list[_Endpoint]:
        found = self._endpoints.get(registry)
        if found is None:
            hosts = []
            for url in self._config.mirrors if registry == HUB else ():
                parts = urlsplit(url)
                rest = f"{parts.netloc}{parts.path.rstrip('/')}"
                hosts.append(_Endpoint(parts.netloc, [parts.scheme], rest, self._is_insecure(parts.netloc)))
            main = _HUB_HOST if registry == HUB else registry
            insecure = self._is_insecure(main)
            # in the order in which dockerd tries them
            schemes = ["https", "http"] if insecure else ["https"]
            found = self._endpoints[registry] = [*hosts, _Endpoint(registry, schemes, main, insecure)]
        return found

    def _is_insecure(self, registry: str) -> bool:
        """Whether dockerd treats the registry as insecure, by its name or address (moby registry/config.go)."""
        # the name first: resolving takes time, and often only the name is listed
        if registry in self._config.insecure:
            return True
        networks = [ipaddress.ip_network(text, strict=False) for text in self._config.insecure_networks]
        return bool(networks) and any(
            ip in network
            for ip in _addresses(urlsplit(f"//{registry}").hostname or "")
            for network in networks
        )

    def _send(self, endpoint: _Endpoint, method: str, name: ImageName, path: str) -> _Reply:
        """Sends a request, with the login or token that the registry demands."""
        while True:
            try:
                reply = self._authorized(endpoint, method, name, path)
                break
            except ValueError as exc:  # from a redirect, or from the address of an authorization server
                raise RegistryError(f"{endpoint.registry} gives an invalid address") from exc
            except RegistryAwayError:
                if len(endpoint.schemes) == 1:
                    raise
                del endpoint.schemes[0]  # an insecure registry may or may not use TLS
        del endpoint.schemes[1:]  # a registry that has answered over TLS is never asked without it
        if reply.status == 429:
            wait_s = wire.retry_after(reply.headers, self._wall())
            raise RateLimitedError(
                f"{name.registry} limits how often it is asked", until=self._wall() + wait_s
            )
        if (found := wire.limit(reply.headers)) is not None:
            self.limits[name.registry] = found
        return reply

    def _authorized(self, endpoint: _Endpoint, method: str, name: ImageName, path: str) -> _Reply:
        url = f"{endpoint.base}/v2/{name.repository}/{path}"
        header = self._authorization(endpoint, name.repository)
        reply = self._follow(endpoint, method, url, header)
        if reply.status != 401 or reply.moved:
            return reply
        found = wire.challenge(reply.headers.get("www-authenticate", ""))
        # the same challenge after our login means that the login is wrong; a retry would count as another attempt
        if found is None or (found == endpoint.challenge and header and found.scheme == "basic"):
            return reply
        endpoint.challenge = found
        endpoint.tokens.pop(name.repository, None)
        again = self._authorization(endpoint, name.repository)
        return self._follow(endpoint, method, url, again) if again else reply

    def _authorization(self, endpoint: _Endpoint, repository: str) -> str:
        if endpoint.challenge is None:
            return ""
        if endpoint.challenge.scheme == "basic":
            return self._own_login(endpoint)
        if repository not in endpoint.tokens:
            endpoint.tokens[repository] = self._token(endpoint, endpoint.challenge, repository)
        return f"Bearer {endpoint.tokens[repository]}"

    def _own_login(self, endpoint: _Endpoint) -> str:
        login = self._login(endpoint.registry)
        return _basic(login.username, login.token or login.password) if login is not None else ""

    def _token(self, endpoint: _Endpoint, asked: wire.Challenge, repository: str) -> str:
        """Docker registry v2 authentication: a token for this repository, obtained with the registry's login."""
        # the registry chooses the address that gets the login, so it must not be one without TLS
        if urlsplit(asked.realm).scheme != "https" and endpoint.schemes[0] == "https":
            raise RegistryError(f"{endpoint.registry} asks for its login to be sent without TLS")
        query = {"scope": f"repository:{repository}:pull"} | (
            {"service": asked.service} if asked.service else {}
        )
        url = asked.realm + ("&" if urlsplit(asked.realm).query else "?") + urlencode(query)
        reply = self._follow(endpoint, "GET", url, self._own_login(endpoint), limit=_TOKEN_LIMIT)
        if reply.status == 429:
            wait_s = wire.retry_after(reply.headers, self._wall())
            raise RateLimitedError(
                f"{endpoint.registry} limits how often it is asked", until=self._wall() + wait_s
            )
        if reply.status != 200:
            known = self._login(endpoint.registry) is not None
            why = "refuses the login of `config auth`" if known else "wants a login"
            raise RegistryError(
                f"{endpoint.registry} {why} (its authorization server answers {reply.status})"
            )
        try:
            return wire.token_of(reply.body)
        except wire.RegistryFormatError as exc:
            raise RegistryError(f"{endpoint.registry}: {exc}") from exc

    def _follow(
        self, endpoint: _Endpoint, method: str, url: str, authorization: str, *, limit: int = _BODY_LIMIT
    ) -> _Reply:
        """Sends a request and follows redirects. The login or token is sent only to the original host."""
        origin = _origin(url)
        for _ in range(_REDIRECTS + 1):
            moved = _origin(url) != origin
            headers = {"Accept": wire.ACCEPT, "Accept-Encoding": "identity", "User-Agent": "ucidockd"}
            # blobs are often stored on other hosts, which must not get the login
            if authorization and not moved:
                headers["Authorization"] = authorization
            status, found, body = self._exchange(endpoint, method, url, headers, limit)
            if status not in (301, 302, 303, 307, 308):
                return _Reply(status, found, body, moved=moved)
            target = urljoin(url, found.get("location", ""))
            # a redirect must not leave TLS: we would update to the digest in the answer
            if urlsplit(target).scheme not in ("http", "https") or (
                urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http"
            ):
                raise RegistryError(f"{endpoint.registry} redirects to an address without TLS")
            url = target
        raise RegistryError(f"{endpoint.registry} redirects in circles")

    def _exchange(
        self, endpoint: _Endpoint, method: str, url: str, headers: dict[str, str], limit: int
    ) -> tuple[int, dict[str, str], bytes]:
        # connections differ by proxy, and by the certificates that are trusted
        parts = urlsplit(url)
        proxy = self._proxy(parts.scheme, parts.hostname or "", parts.port)
        key = (proxy, endpoint.registry)
        if key not in self._managers:
            context = self._context(endpoint)
            made = _proxied(proxy, context) if proxy else urllib3.PoolManager(ssl_context=context)
            keep_pools_in_time(made, self._deadline)
            self._managers[key] = made
        manager = self._managers[key]
        self._deadline.begin(CALL_S)
        try:
            response = manager.urlopen(
                method,
                url,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=CALL_S),
            )
            try:
                found = {name.lower(): value for name, value in response.headers.items()}
                body = b"" if method == "HEAD" else self._body(endpoint, response, limit)
            except BaseException:
                response.close()  # unread bytes must not become the next answer
                raise
            response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise RegistryAwayError(f"{endpoint.registry} cannot be reached: {_why(exc)}") from None
        finally:
            self._deadline.end()
        return response.status, found, body

    def _body(self, endpoint: _Endpoint, response: Any, limit: int) -> bytes:
        parts, size = [], 0
        for piece in response.stream(64 * 1024, decode_content=False):
            size += len(piece)
            if size > limit:
                raise RegistryError(f"{endpoint.registry} sends more than {limit} bytes")
            parts.append(piece)
        return b"".join(parts)

    def _context(self, endpoint: _Endpoint) -> ssl.SSLContext:
        """The system's authorities, and the registry's files in certs.d. Its authorization server and the targets of
        its redirects may use the same authority (moby: registry/registry.go).
        """
        context = ssl.create_default_context()
        # its reads observe the deadline of the whole call
        context.sslsocket_class = TimedTlsSocket
        if endpoint.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        folder = self._config.certificates and self._config.certificates / endpoint.registry
        try:
            here = folder and PATHS.ask(os.path.isdir, str(folder))
            for name in sorted(PATHS.ask(os.listdir, str(folder))) if here else ():
                file = f"{folder}/{name}"
                key = f"{file.removesuffix('.cert')}.key"
                kind = os.path.splitext(name)[1]
                for each in {".crt": (file,), ".cert": (file, key)}.get(kind, ()):
                    PATHS.ask(file_stamp, each)  # OpenSSL would wait for ever at a FIFO
                if kind == ".crt":
                    context.load_verify_locations(file)
                # the file names that dockerd uses in certs.d; with "" a key with a passphrase fails instead of asking
                # on a terminal
                elif kind == ".cert":
                    context.load_cert_chain(file, key, password="")
        except (OSError, ValueError, PathError) as exc:
            raise RegistryError(f"a certificate in {folder} cannot be used: {exc}") from exc
        return context

    def _proxy(self, scheme: str, host: str, port: int | None) -> str:
        url = self._config.proxies.get(scheme, "")
        if not url or _is_direct(host, port, self._config.no_proxy):
            return ""
        url = url if "://" in url else f"http://{url}"
        if urlsplit(url).password == _MASKED:
            raise RegistryError("dockerd's proxy needs a password: add it to `config proxies` too")
        return url


def _proxied(url: str, context: ssl.SSLContext) -> Any:
    parts = urlsplit(url)
    if parts.scheme.startswith("socks"):
        try:
            from urllib3.contrib.socks import SOCKSProxyManager
        except ImportError as exc:
            raise RegistryError("dockerd's proxy is a SOCKS proxy, which needs python3-pysocks") from exc
        name = url.replace("socks5:", "socks5h:", 1)  # Go lets the proxy resolve names
        return SOCKSProxyManager(name, ssl_context=context)
    headers = {}
    if parts.username is not None:
        headers = {"Proxy-Authorization": _basic(unquote(parts.username), unquote(parts.password or ""))}
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(plain, proxy_headers=headers, ssl_context=context)


def _is_direct(host: str, port: int | None, names: Sequence[str]) -> bool:
    """Whether a host is reached without a proxy, by the rules of Go's http.ProxyFromEnvironment: loopback always is."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        ip = None
    # a proxy could not reach our loopback
    if host == "localhost" or (ip is not None and ip.is_loopback):
        return True
    for name in names:
        # one colon separates a port, more than one belong to an IPv6 address
        wanted, colon, number = name.rpartition(":") if name.count(":") == 1 else (name, "", "")
        if colon and number != str(port or ""):
            continue
        if wanted == "*" or wanted.lower() == host.lower():
            return True
        if ip is not None:
            try:
                if ip in ipaddress.ip_network(wanted, strict=False):
                    return True
            except ValueError:
                continue
        elif host.lower().endswith("." + wanted.lower().removeprefix("*").removeprefix(".")):
            return True
    return False


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found]


def _basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return (
        parts.scheme,
        (parts.hostname or "").lower(),
        parts.port or (443 if parts.scheme == "https" else 80),
    )


def _why(exc: BaseException) -> str:
    """The innermost cause as text, without the URL."""
    # the outer errors only repeat the URL
    while (inner := _cause(exc)) is not None:
        exc = inner
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({exc.verify_message})"
    if isinstance(exc, TimeoutError | urllib3.exceptions.TimeoutError):
        return "no answer in time"
    if isinstance(exc, ssl.SSLError):
        return f"no TLS ({exc.reason or 'broken off'})"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return type(exc).__name__


def _cause(exc: BaseException) -> BaseException | None:
    if isinstance(exc, urllib3.exceptions.SSLError) and exc.args and isinstance(exc.args[0], ssl.SSLError):
        return exc.args[0]
    return exc.__cause__
