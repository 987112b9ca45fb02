# SPDX-License-Identifier: GPL-2.0-or-later
"""Mirrors, registries and proxies among dockerd's options, parsed like the others in `agent.model.dockerd.values`."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from agent.model.dockerd.settings import Json
from agent.model.dockerd.values import Discouraged, parse_any_subnet
from agent.model.quantities import QuantityError, parse_int

_REGISTRY = re.compile(r"(?!-)(?:[A-Za-z0-9._-]+(?<!-)|\[[0-9a-fA-F:]+\])(?::(\d{1,5}))?", re.ASCII)
_PROXY_SCHEMES = frozenset({"http", "https", "socks5", "socks5h"})  # the schemes of Go's net/http
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_AROUND_URLS = " ,;|，；、\"'"
# between URLs that people wrote into one entry
_SEVERAL_URLS = re.compile(r"[\s,;|，；、\"']+(?=https?://)", re.IGNORECASE)
_URL_HOST = re.compile(r"[^\s\\^`{|}]+")  # the characters that Go's net/url accepts


def split_urls(text: str) -> tuple[str, ...]:
    """Splits an entry that holds several URLs, as people write `a,b` or, like in daemon.json, `["a", "b"]`."""
    inner = text[1:].removesuffix("]") if text.startswith("[") else text
    return tuple(filter(None, (part.strip(_AROUND_URLS) for part in _SEVERAL_URLS.split(inner))))


def parse_mirror(text: str) -> Json | Discouraged:
    """A registry mirror without user and query (moby registry/config.go, ValidateMirror)."""
    form = "http(s)://host[:port][/path]"
    parts = _url(text)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        host = re.sub(r"^https?:?/*", "", text, flags=re.IGNORECASE)
        # the suggestion must itself be valid, and must not show a login
        fixed = _url(f"https://{host}") if "://" not in host else None
        is_right = fixed is not None and bool(fixed.hostname) and fixed.username is None
        wish = f"https://{host}" if is_right else form
        raise QuantityError("the mirror does not start with http:// or https://", wish)
    if parts.username is not None or parts.query or parts.fragment:
        raise QuantityError("the mirror has more than a host, a port and a path", form)
    if not _URL_HOST.fullmatch(parts.netloc):
        raise QuantityError(f"{parts.netloc!r} is not a host", form)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"


def mirror_needs(mirror: Json) -> tuple[int, int]:
    """The first version of dockerd that accepts the mirror: with a path it needs 24.0 (tested; 23.0 refuses to start)."""
    return (24, 0) if urlsplit(str(mirror)).path not in {"", "/"} else (0, 0)


def _url(text: str) -> SplitResult | None:
    """The parts of a URL, None if it is not one."""
    try:
        parts = urlsplit(text)
        return parts if parts.port != 0 and not re.search(r"\s", text) else None
    except ValueError:
        return None


def parse_registry(text: str) -> Json | Discouraged:
    """host[:port], or a subnet. dockerd ignores a scheme (moby registry/config.go, loadInsecureRegistries)."""
    name = re.sub(r"^https?://", "", text, flags=re.IGNORECASE).removesuffix("/")
    # drop a path, for example of the API or of an image; after an address it is the prefix of a subnet
    host, slash, _ = name.partition("/")
    if slash and not re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:]*", host):
        name = host
    if "/" in name:
        found = parse_any_subnet(name)
    else:
        with contextlib.suppress(ValueError):
            # as host:port its last part would be taken for a port
            if ipaddress.ip_address(name).version == 6:
                return Discouraged(
                    f"{name}/128", f"{text!r} is an IPv6 address without brackets", f"{name}/128"
                )
        match = _REGISTRY.fullmatch(name)
        if match is None:
            raise QuantityError(f"{text!r} is not a registry", "host[:port] or a subnet, without http://")
        if match[1]:
            parse_int(match[1], minimum=1, maximum=65535)
        found = name
    if name != text:
        value = found.value if isinstance(found, Discouraged) else found
        return Discouraged(value, f"{text!r} is more than a registry's name", str(value))
    return found


def parse_proxy(text: str) -> Json | Discouraged:
    """The URL of a proxy; without a scheme it is http://, as in Go. Errors never quote it, because it may contain a
    password."""
    form = "a URL such as http://proxy.lan:3128 or socks5://proxy.lan:1080"
    # Go's rule (golang.org/x/net/http/httpproxy): without a scheme it is http
    complete = text if _SCHEME.match(text) else f"http://{text}"
    parts = _url(complete)
    if parts is None or not parts.hostname:
        raise QuantityError("the proxy is not a URL", form)
    if parts.scheme not in _PROXY_SCHEMES:
        raise QuantityError(f"dockerd has no proxies of the kind {parts.scheme}://", form)
    if complete != text:
        return Discouraged(
            complete, "the proxy has no scheme and is used as http://", "http:// before its address"
        )
    return text


def parse_no_proxy(text: str) -> Json | Discouraged:
    """Names and subnets separated by commas; Go ignores spaces around them."""
    names = ",".join(part for part in re.split(r"[\s,;]+", text) if part)
    if not names:
        raise QuantityError("it holds no name", "names and subnets separated by commas")
    return (
        names if names == text else Discouraged(names, "the names are not separated by commas alone", names)
    )
