# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses what a job is asked to do and turns it into a request to the engine, for HTTP and ubus.

Input is a JSON object or a query; `agent.api.jobs.jobs` runs the result.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from agent.api.problems import RequestError, checked_image, refuse_unknown, switch, text
from agent.apply.images import auth_for
from agent.model.identity import LABEL_OWNER, OWNER
from agent.model.resources import RegistryAuth

Pairs = tuple[tuple[str, str], ...]
Auths = Sequence[RegistryAuth]

_HUB_KEY = "https://index.docker.io/v1/"
_PRUNABLE = ("containers", "images", "networks", "volumes", "build")
_SCHEMES = ("https://", "http://", "git://")  # anything else could name a file of the router
_NAMES_LIMIT = 64  # entries of one list of names in a request
_NAMED_KEPT = (
    1,
    42,
)  # older versions prune named volumes too (Engine API, version history)
_OURS = f"{LABEL_OWNER}={OWNER}"


_SHORTEST = 4  # minimum length of a build argument to be treated as a secret: "1" or "yes" is not one


class JobKind(StrEnum):
    """What a job does."""

    PULL = "pull"
    PUSH = "push"
    BUILD = "build"
    IMPORT = "import"
    LOAD = "load"
    PRUNE = "prune"
    MOVE = "move"


# Seconds without progress after which a job fails because the engine seems to hang. A build step may be silent for
# long, and so may the first MiB of a layer with the containerd store.
STALL_S = {
    JobKind.PULL: 300.0,
    JobKind.PUSH: 300.0,
    JobKind.IMPORT: 600.0,
    JobKind.LOAD: 600.0,
    JobKind.BUILD: 1800.0,
    JobKind.PRUNE: 3600.0,
    JobKind.MOVE: 600.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One POST to the engine, or our own work if `path` is "". Logins are in `headers` and `secrets`, which
    its repr hides.
    """

    kind: JobKind
    title: str
    path: str
    query: Pairs = field(default=(), repr=False)  # build arguments may be secrets
    headers: Pairs = field(default=(), repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    uploads: bool = False
    least_api: tuple[int, int] = (0, 0)  # an older engine would understand the request differently


def parse_job(body: Mapping[str, object], auths: Auths) -> JobSpec:
    """A job without an upload: `kind` pull, push, build (of a `remote`), import or prune. Raises RequestError."""
    kind = text(body, "kind")
    if kind not in _PARSERS:
        raise RequestError(
            f"kind: expected one of {', '.join(sorted(_PARSERS))}; files go to /v1/images/load, /v1/builds, /v1/transfers"
        )
    parser, known = _PARSERS[kind]
    _only(body, known)
    return parser(body, auths)


def _only(body: Mapping[str, object], known: frozenset[str]) -> None:
    refuse_unknown(body.keys() - {"kind"}, sorted(known))


def _pull(body: Mapping[str, object], auths: Auths) -> JobSpec:
    image = checked_image(text(body, "image"))
    name, tag = split_reference(image)
    # always send both: without a tag the engine would pull all tags of the repository
    query = [("fromImage", name), ("tag", tag)]
    if platform := text(body, "platform"):
        query.append(("platform", platform))
    headers, secrets = _login(body, image, auths)
    return JobSpec(
        kind=JobKind.PULL,
        title=image,
        path="/images/create",
        query=tuple(query),
        headers=headers,
        secrets=secrets,
    )


def _push(body: Mapping[str, object], auths: Auths) -> JobSpec:
    image = checked_image(text(body, "image"))
    name, tag = split_reference(image)
    # the engine pushes a tag; it cannot push a digest
    if "@" in image:
        raise RequestError("image: a push takes name:tag, not a digest")
    headers, secrets = _login(body, image, auths)
    return JobSpec(
        kind=JobKind.PUSH,
        title=image,
        path=f"/images/{name}/push",
        query=(("tag", tag),),
        headers=headers,
        secrets=secrets,
    )


def _import(body: Mapping[str, object], auths: Auths) -> JobSpec:
    """POST /images/create with `fromSrc`: the engine downloads a file system as tar."""
    del auths
    source, image = text(body, "source"), checked_image(text(body, "image"))
    # `-` would mean the request's body, which is empty
    if not source.startswith(("https://", "http://")):
        raise RequestError("source: expected an address that starts with https:// or http://")
    if "@" in image:
        raise RequestError("image: an import takes name:tag, not a digest")
    name, tag = split_reference(image)
    return JobSpec(
        kind=JobKind.IMPORT,
        title=image,
        path="/images/create",
        query=(("fromSrc", source), ("repo", name), ("tag", tag)),
        secrets=_userinfo(source),
    )


def _remote_build(body: Mapping[str, object], auths: Auths) -> JobSpec:
    remote = text(body, "remote")
    if not remote.startswith(_SCHEMES) or remote.split("://", 1)[1].startswith("-"):
        raise RequestError("remote: expected an address that starts with https://, http:// or git://")
    return _build_spec(body, auths, remote=remote)


def _build_spec(body: Mapping[str, object], auths: Auths, *, remote: str = "") -> JobSpec:
    """POST /build, of an uploaded context or of `remote`. Raises RequestError."""
    tags = [checked_image(tag) for tag in _names(body, "tags")]
    query = [("t", tag) for tag in tags]
    query += [
        (name, value)
        for name in ("dockerfile", "target", "platform", "networkmode")
        if (value := text(body, name))
    ]
    query += [(name, "1") for name in ("nocache", "pull") if switch(body, name)]
    # otherwise the containers of build steps remain, which only waste space
    query += [("rm", "1"), ("forcerm", "1")]
    if arguments := _texts(body, "buildargs"):
        query.append(("buildargs", json.dumps(arguments)))
    if remote:
        query.append(("remote", remote))
    # A base image may come from any registry, so all logins go along. Reversed, because the first of several sections
    # for one registry wins, as for a pull.
    logins = {_server_of(auth): _credentials(auth) for auth in reversed(auths)}
    return JobSpec(
        kind=JobKind.BUILD,
        title=", ".join(tags) or "(no tag)",
        path="/build",
        query=tuple(query),
        headers=(("x-registry-config", _encoded(logins)), ("content-type", "application/x-tar")),
        # Hidden in the engine's output. Short arguments are not: hiding them would blot out half of the output.
        secrets=(
            *(secret for auth in auths for secret in auth.secrets()),
            *_userinfo(remote),
            *(value for value in arguments.values() if len(value) >= _SHORTEST),
        ),
        uploads=not remote,
    )


BUILD_OPTIONS = frozenset(
    {"tags", "dockerfile", "target", "platform", "networkmode", "nocache", "pull", "buildargs"}
)


def build_upload(body: Mapping[str, object], auths: Auths) -> JobSpec:
    """A build whose context is uploaded as tar. Raises RequestError."""
    _only(body, BUILD_OPTIONS)
    return _build_spec(body, auths)


def load_spec() -> JobSpec:
    """POST /images/load."""
    return JobSpec(
        kind=JobKind.LOAD,
        title="image archive",
        path="/images/load",
        query=(("quiet", "0"),),
        headers=(("content-type", "application/x-tar"),),
        uploads=True,
    )


def _prune(body: Mapping[str, object], auths: Auths) -> JobSpec:
    """Spares what UCI manages: a container that was stopped on purpose is not garbage."""
    del auths
    what = text(body, "what")
    if what not in _PRUNABLE:
        raise RequestError(f"what: expected one of {', '.join(_PRUNABLE)}")
    filters: dict[str, list[str]] = {}
    query: list[tuple[str, str]] = []
    if what in ("containers", "networks", "volumes"):
        # images have no label of ours: `DeclaredImageGuard` keeps the ones that sections need
        filters["label!"] = [_OURS]
    if switch(body, "all"):
        if what == "build":
            query.append(("all", "1"))
        elif what in ("images", "volumes"):
            # dockerd has a different name for `all` in each prune call
            filters |= {"dangling": ["false"]} if what == "images" else {"all": ["true"]}
        else:
            raise RequestError("all: applies to images, volumes and build only")
    if until := text(body, "until"):
        if what == "volumes":
            raise RequestError("until: does not apply to volumes")
        filters["until"] = [until]
    if filters:
        query.append(("filters", json.dumps(filters)))
    return JobSpec(
        kind=JobKind.PRUNE,
        title=what,
        path=f"/{what}/prune",
        query=tuple(query),
        least_api=_NAMED_KEPT if what == "volumes" else (0, 0),
    )


_PARSERS: dict[str, tuple[Callable[[Mapping[str, object], Auths], JobSpec], frozenset[str]]] = {
    JobKind.PULL: (_pull, frozenset({"image", "platform", "auth"})),
    JobKind.PUSH: (_push, frozenset({"image", "auth"})),
    JobKind.BUILD: (_remote_build, BUILD_OPTIONS | {"remote"}),
    JobKind.IMPORT: (_import, frozenset({"image", "source"})),
    JobKind.PRUNE: (_prune, frozenset({"what", "all", "until"})),
}


def split_reference(image: str) -> tuple[str, str]:
    """Name, and tag or digest. The tag defaults to `latest`, since the engine would otherwise take every tag."""
    name, at, digest = image.partition("@")
    if at:
        # the digest wins in name:tag@digest
        return _without_tag(name)[0], digest
    name, tag = _without_tag(image)
    return name, tag or "latest"


def _without_tag(image: str) -> tuple[str, str]:
    head, slash, last = image.rpartition("/")
    name, _, tag = last.partition(":")
    return head + slash + name, tag


def _login(body: Mapping[str, object], image: str, auths: Auths) -> tuple[Pairs, tuple[str, ...]]:
    """X-Registry-Auth: the login in the request, or the one that UCI has for this registry.

    The header is sent even without a login, because engines before 23 refuse a push that lacks it.
    """
    # a login in the request is used for this job only
    given = body.get("auth")
    if given is None:
        auth = auth_for(image, auths)
    elif not isinstance(given, Mapping):
        raise RequestError("auth: expected an object with username, password or token, and serveraddress")
    else:
        _only(given, frozenset({"username", "password", "token", "serveraddress"}))
        auth = RegistryAuth(
            server=text(given, "serveraddress"),
            username=text(given, "username"),
            password=text(given, "password"),
            token=text(given, "token"),
        )
    header = ("x-registry-auth", _encoded(_credentials(auth) if auth is not None else {}))
    return (header,), auth.secrets() if auth is not None else ()


def _credentials(auth: RegistryAuth) -> dict[str, str]:
    return {
        "username": auth.username,
        "password": auth.token or auth.password,
        "serveraddress": _server_of(auth),
    }


def _server_of(auth: RegistryAuth) -> str:
    """The server's name for the engine, which knows the Docker Hub by an old URL (docker/cli, IndexServer)."""
    server = auth.server.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return _HUB_KEY if server in ("docker.io", "index.docker.io", "registry-1.docker.io") else server


def _userinfo(address: str) -> tuple[str, ...]:
    """The user and password in a URL, where git expects tokens."""
    info, at, _ = address.partition("://")[2].partition("/")[0].rpartition("@")
    return tuple(part for part in (info, *info.split(":")) if part) if at else ()


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def _names(body: Mapping[str, object], name: str) -> list[str]:
    value = body.get(name, [])
    if not isinstance(value, list) or len(value) > _NAMES_LIMIT or not all(isinstance(v, str) for v in value):
        raise RequestError(f"{name}: expected a list of at most {_NAMES_LIMIT} names")
    return value


def _texts(body: Mapping[str, object], name: str) -> dict[str, str]:
    value = body.get(name, {})
    if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
        raise RequestError(f"{name}: expected an object of texts")
    return {str(key): str(item) for key, item in value.items()}
