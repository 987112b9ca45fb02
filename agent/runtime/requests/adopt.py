# SPDX-License-Identifier: GPL-2.0-or-later
"""Adopting and importing: existing containers and pasted docker lines become sections of /etc/config/containers.

Blocking. `agent.plan.adoption` and `agent.convert` decide what to write. This module collects their input, decodes
the sections again to prove that they mean what was intended, and commits them. The next pass replaces the container
with one of ours, as for any section with `option adopt 1`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.apply.ports import Engine
from agent.errors import ConfigError, ConflictError, EngineError
from agent.files.atomic import atomic_write
from agent.files.config import decode_edited
from agent.files.uci_store import UciMissing, UciStore, load_for_edit, read_text
from agent.files.user_paths import PATHS, file_bytes, mode_of, no_folder
from agent.model.identity import Key
from agent.model.observed import Record
from agent.model.resources import Container, Desired, Network, Volume
from agent.model.secrets import hidden_pair, hidden_text, hidden_words
from agent.plan.adoption import Adoption, AdoptionContext, adopt, section_name
from agent.uci.decode import PACKAGES
from agent.uci.decode_container import decode_container
from agent.uci.decode_network import decode_network, decode_volume
from agent.uci.encode import by_section, encode_container, encode_network, encode_volume
from agent.uci.reader import SectionReader
from agent.uci.syntax import Option, Package, Section, format_file

if TYPE_CHECKING:
    from agent.convert.requests import ImportRequest
    from agent.runtime.reconciler import Reconciler

PACKAGE = "containers"
_TRIES = 5  # commits; each fails only if another program has just written the file


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptRequest:
    """`container`: name or id; `section`: "" derives it from the name. `show_secrets` only affects the preview."""

    container: str
    section: str = ""
    commit: bool = False
    show_secrets: bool = False


def adopt_container(reconciler: Reconciler, request: AdoptRequest) -> dict[str, Any]:
    """See `Adopter.run`."""
    records = reconciler.records.records()
    return Adopter(engine=reconciler.engine, store=reconciler.store, records=records).run(request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopter:
    """Adopts one container."""

    engine: Engine
    store: UciStore
    records: tuple[Record, ...]

    def run(self, request: AdoptRequest) -> dict[str, Any]:
        """The sections as text, what they cannot express, and whether they were committed.

        Raises ConfigError, ConflictError (another program wrote the file at every attempt), EngineError.
        """
        inspect = self._inspect(request.container)
        # others may write the file between our read and our commit: then decide again with their version
        for left in reversed(range(_TRIES)):
            package, content_hash = self._package()
            sections, notes, lost = self._sections(inspect, package, request.section)
            if not request.commit:
                notes += lost
                break
            # never replace a container by one that lacks a mount of its data, say: whoever accepts that writes the
            # sections of the preview
            if lost:
                name = str(inspect["Name"]).removeprefix("/")
                raise ConflictError(
                    f"{name} is not adopted, because its new container would not be the same: {'; '.join(lost)}. To accept"
                    f" that, append what `ucidockd adopt {name} --show-secrets` prints to /etc/config/{PACKAGE}"
                )
            notes += lost_comments(self.store, PACKAGE)
            try:
                self.store.commit(
                    replace(package, sections=(*package.sections, *sections)), expected=content_hash
                )
                break
            except ConflictError:
                if not left:
                    raise
        return _answer(request, str(inspect["Name"]).removeprefix("/"), sections, notes)

    def _inspect(self, ref: str) -> dict[str, Any]:
        seen = self.engine.inspect_container(ref) if ref else None
        if seen is None or seen.inspect is None:
            raise EngineError(f"there is no container {ref}; `docker ps -a` or LuCI lists them", status=404)
        # only a record makes a container ours: labels prove nothing
        owner = next((r for r in self.records if r.kind == "container" and r.object_id == seen.id), None)
        if owner is not None:
            raise ConfigError(f"{seen.name} is managed already, by the section {owner.section}")
        if (seen.inspect.get("HostConfig") or {}).get("AutoRemove"):
            raise ConflictError(
                f"{seen.name} was run with --rm: the engine removes it when it stops, there would be no way back"
            )
        # Leave out an address that the engine chose: in the section it would be fixed for ever, and collide if the
        # section is copied.
        chosen = self.engine.inspect_chosen_mac(seen.id)
        if chosen is None:
            return seen.inspect
        return {**seen.inspect, "Config": {**(seen.inspect.get("Config") or {}), "MacAddress": chosen}}

    def _package(self) -> tuple[Package, str]:
        try:
            return load_for_edit(self.store, PACKAGE)
        except UciMissing:
            return Package(name=PACKAGE), ""

    def _sections(
        self, inspect: Mapping[str, Any], package: Package, wanted: str
    ) -> tuple[tuple[Section, ...], list[str], list[str]]:
        """The sections, notes on them, and what the container would lose."""
        desired = decode_edited(self.store, package).desired
        name = str(inspect["Name"]).removeprefix("/")
        declared = next((c.section for c in desired.containers if c.name == name), None)
        taken = {section.name for section in package.sections}
        if declared is not None:
            raise ConflictError(
                f"the section {declared} declares {name}: `option adopt 1` there takes it over"
            )
        if wanted in taken or not re.fullmatch(r"[A-Za-z0-9_]*", wanted):
            reason = (
                "is there already" if wanted in taken else "has characters other than letters, digits and _"
            )
            raise ConfigError(f"the section name {wanted!r} {reason}: expected a free name")
        around = self._surroundings(inspect, desired, taken)
        adoption = adopt(inspect, around, section=wanted or section_name(name, taken, suffix="ct"))
        # Encode the sections, decode them like any file, and check them together with the existing sections before
        # they are shown or committed.
        sections, left_out = _encode(adoption, around.sections)
        self._check(package, sections)
        return sections, [*adoption.notes], [*adoption.lost, *left_out]

    def _surroundings(self, inspect: Mapping[str, Any], desired: Desired, taken: set[str]) -> AdoptionContext:
        # collect all input here, so that the decision itself does no I/O
        networks = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
        mounts = inspect.get("Mounts") or ()
        volumes = {str(m["Name"]) for m in mounts if m.get("Type") == "volume"}
        found = {name: self.engine.inspect_network(name) for name in networks}
        seen = {name: self.engine.inspect_volume(name) for name in volumes}
        image = str((inspect.get("Config") or {}).get("Image") or "")
        sections: dict[str, str] = {Key("network", n.name): n.section for n in desired.networks}
        sections |= {Key("volume", v.name): v.section for v in desired.volumes}
        # image defaults and existing sections, which are not written into the section
        return AdoptionContext(
            image=self.engine.inspect_image(str(inspect.get("Image"))) or {},
            image_id_now=str((self.engine.inspect_image(image) or {}).get("Id", "")),
            networks={name: item.inspect for name, item in found.items() if item is not None},
            volumes={name: item.inspect for name, item in seen.items() if item is not None},
            names=dict(self._shared_with(inspect.get("HostConfig") or {})),
            info=self.engine.info(),
            sections=sections,
            taken=taken,
        )

    def _shared_with(self, host: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        # the engine reports ids, which change; a section uses names
        for key in ("NetworkMode", "IpcMode", "PidMode"):
            kind, _, other = str(host.get(key) or "").partition(":")
            seen = self.engine.inspect_container(other) if kind == "container" else None
            if seen is not None:
                yield other, seen.name
        for entry in host.get("VolumesFrom") or ():
            other = str(entry).partition(":")[0]
            seen = self.engine.inspect_container(other)
            if seen is not None:
                yield other, seen.name

    def _check(self, package: Package, sections: tuple[Section, ...]) -> None:
        """Checks that the package is still valid with the new sections (clashing ports, for example). Raises
        ConflictError."""
        names = {section.name for section in sections}
        result = decode_edited(self.store, replace(package, sections=(*package.sections, *sections)))
        wrong = [i.text() for i in result.issues if i.section in names and i.severity == "error"]
        if wrong:
            raise ConflictError(f"conflicts with existing sections: {'; '.join(wrong)}")


def lost_comments(store: UciStore, package: str) -> list[str]:
    """A note if writing the package loses comments."""
    path = store.source_path(package)
    try:
        lines = read_text(path).splitlines()
    except ConfigError:
        return []
    lost = any(line.lstrip().startswith("#") for line in lines)
    return [f"the comments in {path} are lost, as with `uci commit`"] if lost else []


# sections, and the proof that they mean what was intended


def _encode(adoption: Adoption, declared: Mapping[str, str]) -> tuple[tuple[Section, ...], list[str]]:
    """The sections, networks and volumes first, and whatever the syntax of UCI cannot express: that is left out."""
    lost: list[str] = []
    # sections refer to sections, while the engine only knows Docker names
    networks = {n.name: n.section for n in adoption.networks}
    volumes = {v.name: v.section for v in adoption.volumes}
    for key, section in declared.items():
        declared_as = Key.parse(key)
        (networks if declared_as.kind == "network" else volumes)[declared_as.section] = section
    sections = [_proved(network, encode_network(network), lost) for network in adoption.networks]
    sections += [_proved(volume, encode_volume(volume), lost) for volume in adoption.volumes]
    container = adoption.container
    written = encode_container(container, networks=networks, volumes=volumes)
    sections.append(
        _proved(replace(container, spec=by_section(container.spec, networks, volumes)), written, lost)
    )
    return tuple(sections), lost


def _proved(resource: Container | Network | Volume, section: Section, lost: list[str]) -> Section:
    """The section without options that do not decode; `lost` gets them, and each value that decodes to something else."""
    dropped: set[str] = set()
    while True:  # repeated, because a removed option may be required by another one
        reader = SectionReader(section, package=PACKAGE, file="")
        decoded: Container | Network | Volume
        match section.type:
            case "network":
                decoded = decode_network(reader)
            case "volume":
                decoded = decode_volume(reader)
            case _:
                decoded = decode_container(reader, read_file=None)
        errors = [issue for issue in reader.issues if issue.severity == "error"]
        if not errors:
            break
        for issue in errors:
            dropped.add(issue.option)
            lost.append(
                f"{section.name}.{issue.option}: {issue.message}; left out, because UCI cannot express it"
            )
        section = _without(section, {(issue.option, issue.index) for issue in errors})
    for field in fields(resource.spec):
        was, now = getattr(resource.spec, field.name), getattr(decoded.spec, field.name)
        if was != now and not dropped:
            lost.append(f"{section.name}: {field.name} cannot be written exactly as it is; check it")
    return section


def _without(section: Section, places: set[tuple[str, int | None]]) -> Section:
    """The section without the options, or list entries, at these places."""
    options = []
    for option in section.options:
        # a place is a whole option, or one entry of a list; a string only has entry 0
        if (option.name, None) in places or (isinstance(option.value, str) and (option.name, 0) in places):
            continue
        if isinstance(option.value, tuple):
            items = tuple(v for i, v in enumerate(option.value) if (option.name, i) not in places)
            # drop a list without entries: an empty list would be another value than no list
            if not items:
                continue
            option = Option(name=option.name, value=items)
        options.append(option)
    if "image" not in {option.name for option in options} and section.type == "container":
        raise ConfigError(f"the image of {section.name} cannot be expressed in UCI")
    return replace(section, options=tuple(options))


# the answer


def _answer(
    request: AdoptRequest, name: str, sections: tuple[Section, ...], notes: list[str]
) -> dict[str, Any]:
    # environment values are never shown; labels, options and command words are masked if their name says that they
    # are secret
    shown = (
        sections
        if request.show_secrets
        else tuple(
            replace(section, options=tuple(_masked_option(option) for option in section.options))
            for section in sections
        )
    )
    return {
        "container": name,
        "section": sections[-1].name,
        "sections": [{"type": section.type, "name": section.name} for section in sections],
        "text": format_file(Package(name=PACKAGE, sections=shown)).strip("\n") + "\n",
        "notes": notes,
        "committed": request.commit,
    }


def _masked_option(option: Option) -> Option:
    # a health check given as a string is a shell line, which may contain a password
    if isinstance(option.value, str):
        return replace(option, value=hidden_text(option.value)) if option.name == "health_cmd" else option
    # every value, because values from an image's environment may be secret
    if option.name == "env":
        return replace(option, value=tuple(item.partition("=")[0] + "=***" for item in option.value))
    if option.name in {"label", "log_opt", "opt", "annotation", "storage_opt"}:
        pairs = (item.partition("=") for item in option.value)
        return replace(option, value=tuple(hidden_pair(key, value) for key, _, value in pairs))
    if option.name in {"command", "entrypoint", "health_cmd"}:
        return replace(option, value=tuple(hidden_words(option.value)))
    return option


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """Imports text as sections. `files`: the directory that stands for `/`, for tests."""

    store: UciStore
    read_compose: Callable[[str], str] | None = None
    files: Path = Path("/")

    def run(self, request: ImportRequest) -> dict[str, Any]:
        """The sections with a report, and whether they were committed.

        Raises ConfigError, ConflictError (others wrote the file at every attempt), StorageError.
        """
        from agent.convert.requests import convert  # only imports need it

        # Others may write the file between our read and our commit: then decide again with their version.
        for left in reversed(range(_TRIES)):
            packages, content_hash = self._packages()
            imported = convert(request, packages, read_file=PATHS.read_text, read_compose=self.read_compose)
            if not request.commit:
                break
            imported.answer["warnings"] += lost_comments(self.store, PACKAGE)
            # written before the sections that name them; an existing file is never overwritten
            for name, content in imported.files.items():
                path = self.files / name.lstrip("/")
                data = content.encode()
                if wrong := PATHS.ask(no_folder, str(path.parent)):
                    raise ConfigError(f"{name} cannot be written: {wrong}")
                if PATHS.ask(mode_of, str(path)) is not None:
                    if PATHS.ask(file_bytes, str(path)) != data:
                        raise ConfigError(f"{name} exists already with other content; move it away first")
                    continue
                # writing would create a file wherever the link points
                if PATHS.ask(os.path.islink, str(path)):
                    raise ConfigError(f"{name} is a link to a file that does not exist; remove it first")
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                atomic_write(path, data, mode=0o600)
            package = packages[PACKAGE]
            try:
                whole = replace(package, sections=(*package.sections, *imported.sections))
                self.store.commit(whole, expected=content_hash)
                break
            except ConflictError:
                if not left:
                    raise
        return {**imported.answer, "committed": request.commit}

    def _packages(self) -> tuple[dict[str, Package], str]:
        packages = {PACKAGE: Package(name=PACKAGE)}
        content_hash = ""
        for name in PACKAGES:
            try:
                packages[name], found = load_for_edit(self.store, name)
            except UciMissing:
                continue
            # only this package is written; the others are read to resolve references
            content_hash = found if name == PACKAGE else content_hash
        return packages, content_hash
