# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses what registries send (OCI distribution specification): challenges, rate limits, digests, manifests and indexes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ACCEPT = ", ".join((*_INDEXES, *_MANIFESTS))
_DIGEST = re.compile(r"[a-z0-9]+([+._-][a-z0-9]+)*:[0-9a-f]{32,}", re.ASCII)
_PARAMETER = re.compile(r'([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))', re.ASCII)
_LIMIT = re.compile(r"(\d{1,9})(?:;w=(\d{1,9}))?", re.ASCII)
_CODE = re.compile(r"[A-Z_]{1,40}", re.ASCII)  # a code of the OCI specification
_HEADER_MAX = 4096  # the time that the patterns take grows with the square of the length
_DIGEST_MAX = 256
_SIZE_MAX = 2**50  # bytes: 1 PiB; JSON's numbers have no limit
RETRY_S = 3600.0  # used if a registry that limits requests does not say for how long
_RETRY_MAX_S = 24 * 3600.0


class RegistryFormatError(ValueError):
    """A registry's answer does not have the expected form."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """A WWW-Authenticate header that we can answer: `scheme` is basic or bearer."""

    scheme: str
    realm: str = ""
    service: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """How many pulls a registry still allows within `window_s` seconds (Docker Hub's `ratelimit-remaining`)."""

    remaining: int
    window_s: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of one platform: digest and size of its config, and of its layers, lowest first."""

    config: tuple[str, int]
    layers: tuple[tuple[str, int], ...]


def challenge(header: str) -> Challenge | None:
    """The challenge in a header (RFC 7235, and the token specification of the Docker registry); Bearer if
    both are offered.
    """
    found = None
    # a registry is not trusted, and the time that the patterns take grows with the square of the length
    if len(header) > _HEADER_MAX:
        return None
    for part in re.split(r"(?:^|,)\s*(?=(?:bearer|basic)(?:\s|$))", header, flags=re.IGNORECASE):
        scheme, _, rest = part.strip().partition(" ")
        words = {m[1].lower(): m[3] or re.sub(r"\\(.)", r"\1", m[2] or "") for m in _PARAMETER.finditer(rest)}
        if scheme.lower() == "bearer" and words.get("realm"):
            return Challenge("bearer", words["realm"], words.get("service", ""))
        if scheme.lower() == "basic":
            found = Challenge("basic")
    return found


def digest_of(headers: Mapping[str, str]) -> str:
    """The Docker-Content-Digest header, "" if it is missing or not a digest."""
    found = headers.get("docker-content-digest", "").strip()
    return found if len(found) <= _DIGEST_MAX and _DIGEST.fullmatch(found) else ""


def is_index(headers: Mapping[str, str]) -> bool:
    """Whether the body is an index, by its Content-Type."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() in _INDEXES


def limit(headers: Mapping[str, str]) -> Limit | None:
    """The rate limit, None if the registry does not report one."""
    found = _LIMIT.match(headers.get("ratelimit-remaining", "").strip())
    return Limit(int(found[1]), float(found[2] or RETRY_S)) if found else None


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """Seconds to wait after status 429: Retry-After in either form (RFC 9110), or an hour."""
    said = headers.get("retry-after", "").strip()
    # a registry may send nonsense: wait neither too short nor too long
    seconds = RETRY_S
    if said.isascii() and said.isdigit():
        seconds = float(said[:9])
    elif said:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            seconds = RETRY_S
    return min(max(seconds, 1.0), _RETRY_MAX_S)


def error_code(body: bytes) -> str:
    """A code such as `MANIFEST_UNKNOWN`. Not the message, which may quote what was sent."""
    try:
        code = json.loads(body)["errors"][0]["code"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return ""
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def token_of(body: bytes) -> str:
    """The token in an authorization server's answer. Raises RegistryFormatError."""
    found = _object(body)
    token = found.get("token") or found.get("access_token")
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise RegistryFormatError("its authorization server sent no token")
    return token


def sha256(body: bytes) -> str:
    """The digest of a body."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def members(body: bytes) -> tuple[str, ...]:
    """The digests of an index's manifests. Raises RegistryFormatError."""
    return tuple(str(item.get("digest", "")) for item in _items(_object(body), "manifests"))


def member_for(body: bytes, platform: str) -> str:
    """The digest of the manifest for `os/architecture[/variant]`, "" if there is none. Raises RegistryFormatError.

    Without a variant the first manifest of that architecture is used, as dockerd does on most machines.
    """
    system, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    for item in _items(_object(body), "manifests"):
        # attestations and the like are listed as manifests without a platform
        said = item.get("platform")
        if not isinstance(said, dict):
            continue
        same = (said.get("os"), said.get("architecture")) == (system, architecture)
        if same and (not variant or (said.get("variant") or variant) == variant):
            return str(item.get("digest", ""))
    return ""


def manifest(body: bytes) -> Manifest:
    """The manifest of one platform. Raises RegistryFormatError, also for the old schema 1, which has no sizes."""
    found = _object(body)
    config = found.get("config")
    if not isinstance(config, dict):
        raise RegistryFormatError("its manifest has no sizes")
    layers = tuple(map(_descriptor, _items(found, "layers")))
    return Manifest(config=_descriptor(config), layers=layers)


def diff_ids(body: bytes) -> tuple[str, ...]:
    """The diff ids of the layers, from an image's config. Raises RegistryFormatError."""
    root = _object(body).get("rootfs")
    found = root.get("diff_ids") if isinstance(root, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise RegistryFormatError("its image config names no layers")
    return tuple(found)


def _descriptor(item: Mapping[str, Any]) -> tuple[str, int]:
    digest, size = item.get("digest"), item.get("size")
    if not isinstance(digest, str) or type(size) is not int or not 0 <= size <= _SIZE_MAX:
        raise RegistryFormatError("its manifest has no sizes")
    return digest, size


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise RegistryFormatError("its answer is not JSON") from exc
    if not isinstance(found, dict):
        raise RegistryFormatError("its answer is not an object")
    return found


def _items(found: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    items = found.get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise RegistryFormatError(f"its answer has no {name}")
    return items
