# SPDX-License-Identifier: GPL-2.0-or-later
"""Compose files as sections: services, networks, volumes, secrets and configs (compose-spec, 05 to 09).

A project becomes a stack: its services share `option stack`, and services without a network join the stack's own. Volumes
keep the Docker names that compose gives them (`project_name`), so data of containers made by compose is found again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from posixpath import basename, dirname, join, normpath
from typing import Any

from agent.convert.compose_file import Interpolation, merge, pairs, parse_text, resolve_extends, without_marks
from agent.convert.compose_service import ServiceReader, flag, listed, text
from agent.convert.conversion import Conversion, NewFile, SectionDraft
from agent.convert.run_line import security_option
from agent.errors import ConfigError, PathError
from agent.model.kernel_names import near

FILES = "/etc/ucidockd/files"
_TOP = ("services", "networks", "volumes", "secrets", "configs")
_INCLUDES_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeOptions:
    """What the compose file itself does not contain.

    `folder`: the absolute path that relative paths start from. `profiles`: the chosen profiles. `read_file`: reads
    the file of an `extends` or `include`; None if only the text is available.
    """

    project: str = ""
    folder: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    profiles: frozenset[str] = frozenset()
    read_file: Callable[[str], str] | None = None


def import_compose(source: str, conversion: Conversion, options: ComposeOptions) -> None:
    """Adds the sections for a compose file.

    Raises ConfigError if it is not a compose file, or if a variable that it requires is not given.
    """
    _Project(conversion, options).read(source)


class _Project:
    def __init__(self, conversion: Conversion, options: ComposeOptions) -> None:
        self.conversion = conversion
        self.options = options
        # what docker's shell would have in the folder of the file
        self.assumed = {"HOME": "/root", **({"PWD": options.folder} if options.folder else {})}
        self.names = Interpolation({**self.assumed, **options.variables})
        self.document: dict[str, dict[str, Any]] = {}
        self.project = ""
        self.prefix = ""  # what compose puts before the Docker names of networks and volumes
        self.sections: dict[str, str] = {}  # service -> section
        self.dockers: dict[str, str] = {}  # service -> Docker name
        self.networks: dict[str, str] = {}  # network in the file -> section
        self.volumes: dict[str, str] = {}  # volume in the file -> its name in `list volume`
        self.includes = 0
        self.link_names: dict[str, list[str]] = {}  # service -> the names that links of others give it
        self.without_containers: set[str] = set()  # services with `scale: 0`

    def read(self, source: str) -> None:
        document = self.loaded(source)
        for part in _TOP:
            value = document.get(part) or {}
            if not isinstance(value, dict):
                raise ConfigError(f"{part}: expected names with settings below them")
            self.document[part] = {str(name): item for name, item in value.items()}
        if not self.document["services"]:
            # files of format version 1 have no `services:` key: each top-level key is a service
            old = any(
                isinstance(item, dict) and {"image", "build"} & item.keys() for item in document.values()
            )
            wish = (
                "put `services:` above its services and indent them"
                if old
                else "expected `services:` with at least one"
            )
            raise ConfigError(f"the compose file has no services; {wish}")
        wanted = str(document.get("name") or "") or self.options.project or self.options.folder
        self.project, self.prefix = project_name(wanted), compose_name(wanted)
        for key in document.keys() - set(_TOP):
            self._other(key)
        services = resolve_extends(
            self.document["services"], self._services_of if self.options.read_file else None
        )
        chosen = {name: service for name, service in services.items() if self._is_chosen(name, service)}
        # a service whose file could not be read still has the key, and reports it itself
        for name in chosen:
            if "extends" in self.document["services"][name] and "extends" not in chosen[name]:
                self.conversion.taken(f"services.{name}.extends")
        # compose puts services without a network into the project's default network; here that is the stack's
        if any(not s.get("networks") and not s.get("network_mode") for s in chosen.values()):
            self.networks["default"] = self.project
        # all are named before anything is written, because they refer to each other
        for name, service in chosen.items():
            section = self.conversion.free_name(name, prefix=self.project)
            self.conversion.taken_names.add(section)
            self.sections[name] = section
            written = str(service.get("container_name") or "").lstrip("/")
            plain = name if section == re.sub(r"[^A-Za-z0-9_]", "_", name) else f"{self.project}-{name}"
            self.dockers[name] = written or plain
        self._look_ahead(chosen)
        for name in self.document["networks"]:
            self._network(name, chosen)
        for name in self.document["volumes"]:
            self._volume(name)
        for name, service in chosen.items():
            self._service(name, service)
        self._leave_out_unused(chosen)
        # networks and volumes first, so that the preview reads from top to bottom
        self.conversion.drafts.sort(key=lambda draft: draft.kind == "container")
        # last, because only now it is known which variables matter
        self._tell_variables()

    def _leave_out_unused(self, chosen: Mapping[str, Any]) -> None:
        for kind in ("secrets", "configs"):
            used = {name for service in chosen.values() for name in _names(service.get(kind))}
            for name in self.document[kind]:
                if name not in used:
                    self.conversion.left_out(f"{kind}.{name}", "no service uses it")

    # reading the file

    def loaded(self, source: str, folder: str = "") -> dict[str, Any]:
        """The document with variables replaced and `include` merged in.

        `folder`: the folder that its relative paths start from; "" is the project's folder.
        """
        document = parse_text(source)
        if not isinstance(document, dict):
            raise ConfigError("it is not a compose file; expected `services:` with at least one service")
        document = self.names.value({str(key): value for key, value in document.items()})
        if folder:
            document = rebased(document, folder)
        base: dict[str, Any] = {}
        for entry in listed(document.pop("include", None)):
            long = entry if isinstance(entry, dict) else {"path": entry}
            paths = [str(path) for path in listed(long.get("path"))]
            for path in paths:
                self.includes += 1  # counted over all levels, so a file that includes itself ends here too
                if self.options.read_file is None:
                    self.conversion.left_out(f"include {path}", "give the included file as well")
                elif self.includes > _INCLUDES_MAX:
                    raise ConfigError(f"more than {_INCLUDES_MAX} files are included")
                else:
                    self.conversion.taken(f"include {path}")
                    # paths in it start from `project_directory`, or else from the folder of the first file in the entry
                    inner = str(long.get("project_directory") or dirname(paths[0]))
                    base = merge(base, self.loaded(self._file(path), inner))
            if "env_file" in long:
                self.conversion.left_out(
                    f"include {', '.join(paths)} env_file", "put its variables into the .env of the project"
                )
        # services keep theirs until `extends` is resolved
        merged: dict[str, Any] = without_marks(merge(base, document), kept=("services",))
        return merged

    def _file(self, path: str) -> str:
        assert self.options.read_file is not None
        try:
            return self.options.read_file(self.absolute(path) or path)
        except PathError as exc:
            raise ConfigError(str(exc)) from None

    def _services_of(self, path: str) -> Mapping[str, Any]:
        document = self.names.value(parse_text(self._file(path)))
        services = document.get("services") if isinstance(document, dict) else None
        if not isinstance(services, dict):
            raise ConfigError(f"{path} has no services")
        folder = dirname(path)
        return rebased({"services": services}, folder)["services"] if folder else services

    def _other(self, key: str) -> None:
        if key == "name":
            self.conversion.taken("name")
        elif key == "version":
            self.conversion.left_out("version", "docker ignores it too")
        elif key.startswith("x-"):
            self.conversion.left_out(key, "an extension, which docker ignores too")
        elif key == "models":
            self.conversion.left_out(key, "a section has no such option")
        else:
            self.conversion.unknown(
                key, "compose has no such key" + near(key, (*_TOP, "name", "version", "include"))
            )

    def _is_chosen(self, name: str, service: Any) -> bool:
        if not isinstance(service, dict):
            # reported and left out instead of refused: the other services of the file may be fine
            self.conversion.unknown(f"services.{name}", "expected keys such as image below it")
            return False
        profiles = [str(profile) for profile in listed(service.get("profiles"))]
        # `*` chooses all profiles, like `docker compose --profile '*'`
        if profiles and not (self.options.profiles & {*profiles, "*"} or "*" in self.options.profiles):
            words = " or ".join(profiles)
            self.conversion.left_out(
                f"services.{name}", f"it belongs to the profile {words}, which is not chosen"
            )
            return False
        return True

    def absolute(self, path: str) -> str:
        """The absolute path; "" for a relative path without a folder to start from."""
        if path == "~" or path.startswith("~/"):
            return normpath(join("/root", path[2:]))
        if path.startswith("/"):
            return normpath(path)
        return normpath(join(self.options.folder, path)) if self.options.folder else ""

    def _tell_variables(self) -> None:
        for name, message in self.names.refused.items():
            raise ConfigError(
                f"the variable {name} is not set: {message or 'the compose file demands it'}; give it in .env"
            )
        for name in self.names.unset:
            wish = "set it in .env, or write $$ if a dollar sign is meant"
            self.conversion.changed(f"${{{name}}}", f"it is not set, so it is replaced by nothing; {wish}")
        for name, value in self.assumed.items():
            if name not in self.options.variables and name in self.names.used:
                self.conversion.changed(f"${{{name}}}", f"its value is {value}")
        for written in self.names.odd:
            self.conversion.changed(
                written, "it is not a variable and is taken as it stands; compose wants $$ for a dollar sign"
            )

    # naming

    def _look_ahead(self, chosen: Mapping[str, Any]) -> None:
        """Notes what a service has to know about the others: which run no container, and the names that links give.
        A network knows these names for all its containers, so one that is a service's own is not given to another.
        """
        for name, service in chosen.items():
            deploy = service.get("deploy")
            replicas = deploy.get("replicas") if isinstance(deploy, dict) else None
            if "0" in (text(service.get("scale")), text(replicas)):
                self.without_containers.add(name)
            for item in listed(service.get("links")):
                linked, _, alias = text(item).partition(":")
                other = chosen.get(linked)
                if (
                    alias
                    and other is not None
                    and not other.get("network_mode")
                    and alias not in self.sections
                ):
                    self.link_names.setdefault(linked, []).append(alias)

    # top-level parts

    def _described(self, part: str, name: str) -> tuple[dict[str, Any], bool, str]:
        """The settings of a network or volume, whether it is external, and its stated Docker name."""
        settings = self.document[part][name] or {}
        if not isinstance(settings, dict):
            self.conversion.unknown(f"{part}.{name}", "expected settings such as driver below it")
            settings = {}
        external = settings.get("external")
        # old files have the name below `external`
        older = external.get("name") if isinstance(external, dict) else ""
        return settings, bool(external), str(settings.get("name") or older or "")

    def _network(self, name: str, chosen: Mapping[str, Any]) -> None:
        where = f"networks.{name}"
        users = [
            s
            for s in chosen.values()
            if name in _names(s.get("networks"))
            or (name == "default" and not s.get("networks") and not s.get("network_mode"))
        ]
        if not users:
            self.conversion.left_out(where, "no service uses it")
            return
        settings, external, own_name = self._described("networks", name)
        docker = own_name
        if not docker and external:
            docker = name
        elif not docker:
            docker = self.project if name == "default" else f"{self.prefix}_{name}"
        if docker in self.conversion.networks_there:
            self.networks[name] = self.conversion.networks_there[docker]
            self.conversion.changed(where, f"it is section {self.networks[name]}, which is there already")
            return
        if own_name and (made := self._network_named(docker)) is not None:
            self.networks[name] = made.name
            self.conversion.changed(where, f"it is section {made.name}, which is there already")
            return
        if name == "default" and self.project not in self.conversion.taken_names:
            draft = SectionDraft("network", self.project)
            self.conversion.drafts.append(draft)
        else:
            draft = self.conversion.draft("network", docker, prefix=f"{self.project}_net")
        self.networks[name] = draft.name
        # with compose's Docker name, containers made by compose still find each other
        if docker != draft.name:
            draft.put("name", docker, f"{where}.name")
        self.conversion.taken(where)
        if external:
            draft.put("external", "1", f"{where}.external")
            self.conversion.taken(f"{where}.external")
        for key, value in settings.items():
            self._network_key(draft, where, str(key), value)

    def _network_key(self, draft: SectionDraft, where: str, key: str, value: Any) -> None:
        place = f"{where}.{key}"
        # handled already when the network was named
        if key in ("external", "name") or value is None:
            return
        if key in ("driver", "internal", "attachable", "enable_ipv6"):
            option = "ipv6" if key == "enable_ipv6" else key
            draft.put(option, text(value) if key == "driver" else flag(value), place)
            self.conversion.taken(place)
        elif key in ("driver_opts", "labels"):
            option = "opt" if key == "driver_opts" else "label"
            for name, item in pairs(value).items():
                draft.put(option, f"{name}={text(item)}", f"{place}.{name}")
                self.conversion.taken(f"{place}.{name}")
        elif key == "ipam" and isinstance(value, dict):
            self._ipam(draft, place, value)
        elif key.startswith("x-"):
            self.conversion.left_out(place, "an extension, which docker ignores too")
        elif key in ("enable_ipv4", "ipam"):
            self.conversion.left_out(place, "a section has no such option")
        else:
            self.conversion.unknown(place, "compose has no such key")

    def _ipam(self, draft: SectionDraft, where: str, ipam: Mapping[str, Any]) -> None:
        options = {"subnet": "subnet", "gateway": "gateway", "ip_range": "ip_range"}
        for key, value in ipam.items():
            # compose writes `driver: default` into files that it prints
            if key != "config":
                if not (key == "driver" and value == "default"):
                    self.conversion.left_out(
                        f"{where}.{key}", "network sections use the default address management"
                    )
                continue
            for at, pool in enumerate(listed(value)):
                for name, item in pool.items() if isinstance(pool, dict) else ():
                    place = f"{where}.config[{at}].{name}"
                    if name in options:
                        draft.put(options[name], text(item), place)
                        self.conversion.taken(place)
                    elif name == "aux_addresses":
                        for host, address in pairs(item).items():
                            draft.put("aux_address", f"{host}={text(address)}", place)
                        self.conversion.taken(place)
                    else:
                        self.conversion.unknown(place, "compose has no such key")

    def _volume(self, name: str) -> None:
        where = f"volumes.{name}"
        settings, external, own_name = self._described("volumes", name)
        docker = own_name or (name if external else f"{self.prefix}_{name}")
        self.volumes[name] = docker
        self.conversion.taken(where)
        rest = {
            key: value
            for key, value in settings.items()
            if key not in ("external", "name") and value is not None
        }
        rest = {key: value for key, value in rest.items() if not (key == "driver" and value == "local")}
        # a volume without settings needs no section: the engine creates it when a container names it
        if not rest or external:
            return
        draft = self.conversion.draft("volume", docker, prefix="vol")
        self.volumes[name] = draft.name
        if draft.name != docker:
            draft.put("name", docker, f"{where}.name")
        draft.put("adopt", "1", where)
        for key, value in rest.items():
            place = f"{where}.{key}"
            if key == "driver":
                draft.put("driver", text(value), place)
            elif key in ("driver_opts", "labels"):
                for option, item in pairs(value).items():
                    entry = text(item)
                    if option == "device" and entry.startswith((".", "~")):
                        entry = self.absolute(entry) or entry
                    draft.put(
                        "opt" if key == "driver_opts" else "label", f"{option}={entry}", f"{place}.{option}"
                    )
            elif str(key).startswith("x-"):
                self.conversion.left_out(place, "an extension, which docker ignores too")
                continue
            else:
                self.conversion.unknown(place, "compose has no such key")
                continue
            self.conversion.taken(place)

    # services

    def _service(self, name: str, service: Mapping[str, Any]) -> None:
        draft = SectionDraft("container", self.sections[name])
        self.conversion.drafts.append(draft)
        if self.dockers[name] != draft.name:
            draft.put("name", self.dockers[name], f"services.{name}.container_name")
        draft.put("stack", self.project, "name")
        ServiceReader(self, name, draft).read(service)

    # called by the reader of a service

    def volume_source(self, source: str, where: str) -> str:
        """The name of one of the file's volumes in `list volume`."""
        if source not in self.volumes:
            self.conversion.changed(
                where, f"the file declares no volume {source}; it is made as {self.prefix}_{source}"
            )
            self.volumes[source] = f"{self.prefix}_{source}"
        return self.volumes[source]

    def network_section(self, name: str, where: str) -> str:
        if name == "default":
            self.networks.setdefault(name, self.project)  # the stack's own
        if name not in self.networks:
            draft = self.conversion.draft("network", f"{self.prefix}_{name}", prefix="net")
            self.conversion.changed(
                where, f"the file declares no network {name}; the section {draft.name} is made"
            )
            self.networks[name] = draft.name
        return self.networks[name]

    def external_network(self, docker: str) -> str:
        """The section of an existing network with this Docker name. Adds an external one if there is none."""
        if docker in self.conversion.networks_there:
            return self.conversion.networks_there[docker]
        # an earlier service of this file may have named it
        made = self._network_named(docker)
        if made is None:
            made = self.conversion.draft("network", docker, prefix=f"{self.project}_net")
            if made.name != docker:
                made.put("name", docker)
            made.put("external", "1")
        return made.name

    def _network_named(self, docker: str) -> SectionDraft | None:
        """The new network with that Docker name."""
        networks = (draft for draft in self.conversion.drafts if draft.kind == "network")
        return next((draft for draft in networks if draft.options.get("name", draft.name) == docker), None)

    def env_text(self, path: str) -> str | None:
        """The text of a service's env_file; None if it cannot be read here."""
        try:
            return self.options.read_file(self.absolute(path)) if self.options.read_file is not None else None
        except PathError:
            return None  # the container waits for the file, and status says so

    def shared_file(self, kind: str, name: str, where: str) -> str:
        """The path on the router of a secret or config; "" after reporting why there is none."""
        source = self.document[kind].get(name)
        if not isinstance(source, dict):
            self.conversion.unknown(where, f"the file declares no {kind[:-1]} {name}")
            return ""
        if source.get("external"):
            self.conversion.left_out(where, "external ones need a swarm, which the router does not have")
            return ""
        if "file" in source:
            path = self.absolute(str(source["file"]))
            if not path:
                self.conversion.left_out(where, "give the folder that it starts from, or an absolute path")
            return path
        content = source.get("content")
        if "environment" in source:
            content = self.options.variables.get(str(source["environment"]))
            if content is None:
                self.conversion.left_out(
                    where, f"the variable {source['environment']} is not set; give it in .env"
                )
                return ""
        if content is None:
            self.conversion.unknown(where, "it has neither file, content nor environment")
            return ""
        # sections mount files, so content in the compose file has to become a file
        made = NewFile(
            path=f"{FILES}/{self.project}/{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}", content=str(content)
        )
        if made not in self.conversion.files:
            self.conversion.files.append(made)
        return made.path


def rebased(document: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The content of a compose file in `folder`, with its relative paths changed to start from the project's folder
    (compose-spec, 14).
    """
    return _Rebaser(folder).document(document)


class _Rebaser:
    """Changes relative paths of a compose file in `folder`. What does not have the expected form is left as it is: the
    reader reports it later."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def document(self, document: Mapping[str, Any]) -> dict[str, Any]:
        made = dict(document)
        parts: dict[str, Callable[[Any], Any]] = {
            "services": self._service,
            "volumes": self._volume,
            "secrets": lambda value: self._setting(value, "file"),
            "configs": lambda value: self._setting(value, "file"),
        }
        for part, change in parts.items():
            if isinstance(made.get(part), dict):
                made[part] = {name: change(value) for name, value in made[part].items()}
        includes = listed(made.get("include"))
        if includes:
            made["include"] = [self._include(each) for each in includes if isinstance(each, str | dict)]
        return made

    def _path(self, value: Any) -> Any:
        if not isinstance(value, str) or not value or value.startswith(("/", "~")):
            return value
        path = normpath(join(self._folder, value))
        return path if self._folder.startswith("/") else f"./{path}"

    def _setting(self, value: Any, key: str) -> Any:
        """Settings in which `key` is a path."""
        return {**value, key: self._path(value[key])} if isinstance(value, dict) and key in value else value

    def _service(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        made = dict(value)
        if isinstance(made.get("volumes"), list):
            made["volumes"] = [self._mount(item) for item in made["volumes"]]
        if "env_file" in made:
            made["env_file"] = [
                self._setting(item, "path") if isinstance(item, dict) else self._path(item)
                for item in listed(made["env_file"])
            ]
        if isinstance(made.get("security_opt"), list):
            made["security_opt"] = [security_option(text(item), self._path) for item in made["security_opt"]]
        if "extends" in made:
            made["extends"] = self._setting(made["extends"], "file")
        return made

    def _mount(self, value: Any) -> Any:
        if isinstance(value, dict):
            is_bind = value.get("type") == "bind"
            return {**value, "source": self._path(value.get("source"))} if is_bind else value
        source, colon, rest = str(value).partition(":")
        # a source without a slash is the name of a volume, unless it is `.` or `..`
        is_path = "/" in source or source.startswith(".")
        return f"{self._path(source)}:{rest}" if colon and is_path else value

    def _volume(self, value: Any) -> Any:
        options = value.get("driver_opts") if isinstance(value, dict) else None
        is_bind = isinstance(options, dict) and str(options.get("device", "")).startswith(".")
        return {**value, "driver_opts": self._setting(options, "device")} if is_bind else value

    def _include(self, value: str | dict[str, Any]) -> Any:
        if isinstance(value, str):
            return self._path(value)
        paths = [self._path(one) for one in listed(value.get("path"))]
        return {**self._setting(value, "project_directory"), "path": paths}


def project_name(wanted: str) -> str:
    """The name of a stack, from a project's name or its folder: lower case like compose, with the characters that UCI
    allows.
    """
    base = basename(normpath(wanted)) if wanted else ""
    return re.sub(r"[^a-z0-9_]", "_", base.lower()).strip("_") or "app"


def compose_name(wanted: str) -> str:
    """The name that compose gives a project: lower case, without characters other than letters, digits, `_` and `-`
    (compose-go, loader.NormalizeProjectName).
    """
    base = basename(normpath(wanted)) if wanted else ""
    return re.sub(r"[^a-z0-9_-]", "", base.lower()).lstrip("_-") or "app"


def _names(value: Any) -> list[str]:
    """The names in a list of names, or of mappings with `source`; or the keys of a mapping."""
    if isinstance(value, dict):
        return [str(key) for key in value]
    items: Iterable[Any] = listed(value)
    return [str(item.get("source", "")) if isinstance(item, dict) else str(item) for item in items]
