# SPDX-License-Identifier: GPL-2.0-or-later
"""What a browser says about where a request comes from (`Origin`) and goes to (`Host`): exact comparison, nothing else.

WHATWG Fetch (CORS protocol), RFC 6454 section 6.2, RFC 9110 sections 7.2 and 15.5.20, Private Network Access.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable

_HOST = re.compile(r"(?P<name>[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}

_ALLOW_METHODS = "GET, HEAD, POST, PUT, DELETE"
_ALLOW_HEADERS = "authorization, content-type, last-event-id, x-registry-auth, x-registry-config"
_EXPOSE_HEADERS = "content-disposition, x-docker-container-path-stat, retry-after"
_MAX_AGE_S = 600


def normal_origins(configured: Iterable[str]) -> frozenset[str]:
    """The configured origins as browsers write them: lower case, without the scheme's own port."""
    return frozenset(_normal(text) for text in configured)


def _normal(origin: str) -> str:
    scheme, _, rest = origin.lower().partition("://")
    return f"{scheme}://{rest.removesuffix(':' + _DEFAULT_PORTS.get(scheme, ''))}"


def host_name(header: str) -> str:
    """The host of a `Host` header, an IPv6 address without its brackets; "" when the header is not well formed."""
    found = _HOST.fullmatch(header.lower())
    return found["name"].strip("[]") if found else ""


def host_allowed(header: str, *, local: str, names: Collection[str]) -> bool:
    """Whether a request with that `Host` is for us: the address it came in at, or one of our names.

    A page that rebinds its own name to our address still sends its own name.
    """
    name = host_name(header)
    if not name:
        return False
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(local)
    except ValueError:
        return name in names


def own_names(hostname: str, configured: Iterable[str]) -> frozenset[str]:
    """The names that a `Host` may carry."""
    short = hostname.lower()
    return frozenset({"localhost", short, f"{short}.lan", *(name.lower() for name in configured)})


def same_origin(origin: str, host: str) -> bool:
    """Whether a page of `origin` asked its own server, which a reverse proxy in between says by `Host`."""
    return bool(host_name(host)) and origin in (f"http://{host.lower()}", f"https://{host.lower()}")


def is_preflight(method: str, headers: Collection[str]) -> bool:
    """Whether a browser asks for leave. `headers` are the names of the request's."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def preflight_headers(*, private_network: bool) -> dict[str, str]:
    """What a page of a listed origin may send, beside `cors_headers`."""
    headers = {
        "access-control-allow-methods": _ALLOW_METHODS,
        "access-control-allow-headers": _ALLOW_HEADERS,
        "access-control-max-age": str(_MAX_AGE_S),
    }
    return headers | ({"access-control-allow-private-network": "true"} if private_network else {})


def cors_headers(origin: str) -> dict[str, str]:
    """For each answer to a listed origin. No credentials: there are no cookies here."""
    return {"access-control-allow-origin": origin, "access-control-expose-headers": _EXPOSE_HEADERS}
