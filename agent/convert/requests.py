# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests for import and export, and their answers, for HTTP, ubus and the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.convert.compose import ComposeOptions, import_compose
from agent.convert.compose_file import parse_env
from agent.convert.conversion import PACKAGE, Conversion
from agent.convert.export import export_compose, export_run
from agent.convert.run_line import import_run
from agent.errors import ConfigError
from agent.model.resources import Desired, prerequisites_first
from agent.uci.syntax import Package, Section

FORMS = ("run", "compose")
TEXT_MAX = 1024 * 1024  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """`run` (shell text, or the words of one command) or `compose` (YAML or JSON).

    `folder`: the absolute path that relative paths start from. `env`: the text of a `.env` file. `profiles`,
    `project`: for compose. `commit` writes the sections and files.
    """

    run: str | tuple[str, ...] = ""
    compose: str = ""
    project: str = ""
    folder: str = ""
    env: str = ""
    profiles: tuple[str, ...] = ()
    commit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The new sections, the files that they need, and the answer of `POST /v1/import`."""

    sections: tuple[Section, ...]
    files: Mapping[str, str]
    answer: dict[str, Any]


def convert(
    request: ImportRequest,
    packages: Mapping[str, Package],
    *,
    read_file: Callable[[str], str],
    read_compose: Callable[[str], str] | None = None,
) -> Imported:
    """The sections for a request, next to those in `packages`. Raises ConfigError if there is nothing to import.

    `read_file` reads files that sections name. `read_compose` reads further compose files; None if there are none.
    """
    if bool(request.run) is bool(request.compose):
        raise ConfigError("give either a docker run line or a compose file")
    if request.folder and not request.folder.startswith("/"):
        raise ConfigError(f"the folder {request.folder[:64]!r} is not an absolute path")
    variables = parse_env(request.env)
    there = packages[PACKAGE].sections if PACKAGE in packages else ()
    # know the existing names from the start, so that references inside the import lead to its own sections
    conversion = Conversion(
        taken_names={section.name for section in there},
        networks_there={
            str(option.value) if (option := section.get("name")) is not None else section.name: section.name
            for section in there
            if section.type == "network"
        },
    )
    if request.run:
        import_run(request.run, conversion, folder=request.folder, variables=variables)
    else:
        options = ComposeOptions(
            project=request.project,
            folder=request.folder,
            variables=variables,
            profiles=frozenset(request.profiles),
            read_file=read_compose,
        )
        import_compose(request.compose, conversion, options)
    warnings = conversion.finish(packages, read_file=read_file)
    answer = conversion.as_json(warnings)
    sections = tuple(draft.section() for draft in conversion.drafts)
    return Imported(sections=sections, files={f.path: f.content for f in conversion.files}, answer=answer)


def export(form: str, names: Sequence[str], desired: Desired) -> str:
    """The text of `GET /v1/export`: containers by section or Docker name; without names all of them.

    It contains what the sections contain, including secrets. Raises ConfigError for an unknown name.
    """
    if form not in FORMS:
        raise ConfigError(f"{form[:64]!r} is not a format; expected run or compose")
    chosen = [desired.container(name) for name in names] if names else desired.containers
    if not chosen:
        raise ConfigError("no container is declared")
    # docker creates them in this order: a container that shares another's network must come after it
    by_section = {container.section: container for container in chosen}
    order = prerequisites_first(
        {section: {d.section for d in c.policy.depends_on} for section, c in by_section.items()}
    )
    containers = [by_section[section] for section in order]
    used_networks = {endpoint.network for c in containers for endpoint in c.spec.endpoints}
    used_volumes = {mount.source for c in containers for mount in c.spec.mounts}
    networks = [network for network in desired.networks if network.name in used_networks]
    volumes = [volume for volume in desired.volumes if volume.name in used_volumes]
    if form == "run":
        return export_run(containers, networks, volumes)
    stacks = {container.stack for container in containers}
    project = stacks.pop() if len(stacks) == 1 else ""
    return export_compose(containers, networks, volumes, project=project.lower())
