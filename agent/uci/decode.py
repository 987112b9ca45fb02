# SPDX-License-Identifier: GPL-2.0-or-later
"""Decodes the packages `containers` and `dockerd` into the desired resources.

Input comes from `agent.uci.syntax` (text -> packages), the result goes to `agent.plan`. All mistakes are found in one
run; an invalid section is left out and its key added to `Desired.broken`, and the other sections are decoded. Pure:
the caller passes in a function that reads env files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.model.addresses import UNKNOWN_MACHINE, Machine, parse_engine_address, parse_listen
from agent.model.dockerd.successors import of_dockerman
from agent.model.entries import VOLUME_NAME
from agent.model.identity import Key
from agent.model.issues import Issue, shortened
from agent.model.quantities import parse_age, parse_int, parse_seconds, parse_size
from agent.model.resources import (
    AgentSettings,
    Backup,
    Container,
    DependsOn,
    Desired,
    Endpoint,
    Network,
    PruneImages,
    PruneSettings,
    RegistryAuth,
    Stack,
    Threshold,
    Volume,
)
from agent.model.updates import UpdateCheck, parse_window
from agent.schema.validate import DAEMON_KINDS, KINDS, validate
from agent.uci.crosscheck import DecodedSections, check_address, crosscheck
from agent.uci.decode_container import ReadFile, decode_container, environment
from agent.uci.decode_daemon import decode_daemon, tidied
from agent.uci.decode_network import decode_network, decode_notify, decode_volume
from agent.uci.reader import SectionReader
from agent.uci.syntax import Option, Package, Section


def decode_auth(reader: SectionReader) -> RegistryAuth:
    # as in Docker, a login is a user name with a password, or an identity token instead of both
    username, password = reader.text("username") or "", reader.text("password") or ""
    token = reader.text("token") or ""
    if not token and not (username and password):
        reader.report("the login is not complete", expected="`token`, or `username` and `password`")
    server = reader.text("serveraddress") or ""
    return RegistryAuth(server=server, username=username, password=password, token=token)


def decode_backup(reader: SectionReader) -> Backup:
    """A `config backup` section, with its volumes as the section names them."""
    base = Backup(name=reader.name)
    backup = Backup(
        name=reader.name,
        sections=reader.texts("section"),
        volumes=reader.texts("volume"),
        schedule=reader.text("schedule") or base.schedule,
        window=reader.parsed("window", parse_window),
        target=reader.text("target") or "",
        command=reader.text("exec") or "",
        keep=reader.parsed("keep", parse_int) or base.keep,
        stop=reader.flag("stop") or False,
    )
    # reported although nothing breaks: an empty backup would succeed every night and be missed when it is needed
    if not (backup.sections or backup.volumes):
        reader.report("the backup names nothing to save", expected="`list section` or `list volume`")
    # with two destinations the second would be skipped if the first one fails; without any, nothing is saved
    if bool(backup.target) is bool(backup.command):
        reader.report(
            "a backup has exactly one destination",
            expected="`option target`, a folder, or `option exec`, a command",
        )
    return backup


def _with_volumes(reader: SectionReader, backup: Backup, draft: DecodedSections) -> Backup:
    """The backup with Docker names of its volumes, including the volumes that its containers mount."""
    containers = {container.section: container for _, container in draft.containers}
    docker_names = {volume.section: volume.name for _, volume in draft.volumes}
    found = [docker_names.get(name, name) for name in backup.volumes]
    for index, name in enumerate(backup.sections):
        if name not in containers:
            reader.report(
                f"no container section is named {name!r}",
                option="section",
                index=index,
                expected="one of " + ", ".join(sorted(containers)[:10])
                if containers
                else "a container section",
            )
            continue
        mounts = containers[name].spec.mounts
        named = [docker_names.get(m.source, m.source) for m in mounts if m.source and not m.is_bind]
        # only a warning, because the backup of the other sections is valid; but people expect bind mounts to be saved
        # too
        if not named:
            reader.warn(
                f"{name!r} mounts no named volume",
                option="section",
                index=index,
                expected="backups save volumes only: back up the router's folders with its own tools",
            )
        found += named
    # a volume that two sections mount is saved once
    return replace(backup, volumes=tuple(dict.fromkeys(found)))


def decode_agent(reader: SectionReader) -> AgentSettings:
    """The agent's settings; an invalid option keeps its default."""
    # no mistake in this section may keep the agent from running, because the agent reports the mistake
    base = AgentSettings()
    # handled separately because 0 and False are valid values, which `or` would replace by the default
    enabled, workers = reader.flag("enabled"), reader.parsed("workers", parse_int)
    load_history = reader.flag("load_history")
    keep = reader.parsed("keep_images", parse_int)
    settings = AgentSettings(
        enabled=base.enabled if enabled is None else enabled,
        socket=reader.text("socket") or base.socket,
        listen=reader.values("listen", parse_listen),
        cert=reader.text("cert") or base.cert,
        key=reader.text("key") or base.key,
        cors_origin=reader.texts("cors_origin"),
        allowed_host=reader.texts("allowed_host"),
        allow_exposed=reader.flag("allow_exposed") or base.allow_exposed,
        allow_container_clients=reader.flag("allow_container_clients") or base.allow_container_clients,
        resync_s=reader.parsed("resync", parse_seconds) or base.resync_s,
        resync_deep_s=reader.parsed("resync_deep", parse_seconds) or base.resync_deep_s,
        workers=workers or base.workers,
        log_level=reader.text("log_level") or base.log_level,
        daemon=reader.text("daemon") or base.daemon,
        docker_host=str(reader.parsed("docker_host", parse_engine_address) or base.docker_host),
        docker_cert_path=reader.text("docker_cert_path") or base.docker_cert_path,
        dockerd=reader.text("dockerd") or base.dockerd,
        dockerd_args=reader.words("dockerd_args") or (),
        remove=reader.flag("remove") or base.remove,
        keep_images=base.keep_images if keep is None else keep,
        prune=_prune(reader),
        load_history=base.load_history if load_history is None else load_history,
        update_check=UpdateCheck(reader.text("update_check") or base.update_check),
        update_check_window=reader.parsed("update_check_window", parse_window),
    )
    # left over from an earlier setting: harmless, but people would wait for a window that has no effect
    if reader.has("update_check_window") and settings.update_check is UpdateCheck.OFF:
        reader.warn(
            "has no effect: registries are not asked",
            option="update_check_window",
            expected="`option update_check 'daily'` or `'weekly'`",
        )
    # otherwise the listener would fail when it starts, long after the invalid commit
    if bool(settings.cert) is not bool(settings.key):
        reader.report(
            "certificate and key go together",
            option="cert" if settings.cert else "key",
            expected="both `cert` and `key`, or none",
        )
    _check_engine(reader, settings)
    return settings


def _prune(reader: SectionReader) -> PruneSettings:
    base = PruneSettings()
    older_s = reader.parsed("prune_older", parse_age)
    found = PruneSettings(
        images=PruneImages(reader.text("prune_images") or base.images),
        older_s=base.older_s if older_s is None else older_s,
        build_cache=reader.flag("prune_build_cache") or base.build_cache,
        schedule=reader.text("prune_schedule") or base.schedule,
        window=reader.parsed("prune_window", parse_window),
        below=reader.parsed("prune_below", _parse_threshold),
    )
    for name in ("prune_older", "prune_schedule", "prune_window"):
        if reader.has(name) and not found.is_on:
            reader.warn(
                "has no effect: nothing is cleaned up",
                option=name,
                expected="`option prune_images 'dangling'` or `'unused'`, or `option prune_build_cache '1'`",
            )
            break  # the others have no effect for the same reason
    return found


def _parse_threshold(text: str) -> Threshold:
    if text.endswith("%"):
        return Threshold(percent=parse_int(text[:-1], minimum=1, maximum=99))
    return Threshold(size=parse_size(text))


def _check_engine(reader: SectionReader, settings: AgentSettings) -> None:
    """Warns of an unprotected connection to the engine, and of TLS settings without effect."""
    # not refused: the router may reach its engine through a tunnel that we cannot see
    address, encrypted = parse_engine_address(settings.docker_host), bool(settings.docker_cert_path)
    if encrypted and address.path:
        reader.warn("has no effect: a unix socket does not use TLS", option="docker_cert_path")
    if not encrypted and not address.is_local:
        reader.warn(
            "the connection to this engine is not encrypted: anyone on the network path can read it and control the engine",
            option="docker_host",
            expected="`docker_cert_path`, the folder of a client's certificate",
        )


PACKAGES = ("containers", "dockerd")  # in this order: a login in `containers` takes precedence


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeResult:
    """The desired resources, and all mistakes in the files."""

    desired: Desired
    issues: tuple[Issue, ...]


def decode(
    packages: Mapping[str, Package],
    *,
    paths: Mapping[str, str],
    read_file: Callable[[str], str] | None = None,
    machine: Machine = UNKNOWN_MACHINE,
) -> DecodeResult:
    """Decodes all packages. `paths`: package -> its file, for messages; `machine`: the one that the engine runs on."""
    stray: list[Issue] = []
    readers = [
        _reader(section, package=name, file=paths.get(name, ""))
        for name in PACKAGES
        if name in packages
        for section in packages[name].sections
        if _is_ours(section, package=name, file=paths.get(name, ""), stray=stray)
    ]
    stray += [
        Issue(
            severity="warning",
            code="syntax",
            package=name,
            section="",
            file=paths.get(name, ""),
            line=line,
            message="a quoted value continues over a line that looks like a command",
            expected="a closing quote on this line",
        )
        for name in PACKAGES
        if name in packages
        for line in packages[name].swallowed
    ]
    # dockerd's sections have their own decoder and take no part in the checks of names and references
    daemon = [reader for reader in readers if reader.kind in DAEMON_KINDS]
    readers = [reader for reader in readers if reader.kind not in DAEMON_KINDS]
    _check_names(readers)
    draft = _draft(readers, read_file)
    # includes broken sections: a reference to an invalid section is not a reference to nothing
    settings = decode_daemon(daemon)
    crosscheck(draft, machine, daemon=settings.values if settings is not None else {})
    for reader in daemon:
        if reader.kind == "globals" and settings is not None:
            check_address(reader, str(settings.values.get("ip") or ""), machine, option="ip")
    # networks that belong to stacks
    readers += [reader for reader, _ in draft.networks if reader not in readers]
    desired = replace(
        _desired(draft, readers),
        daemon=settings,
        daemon_mistakes=tuple(
            issue.text() for reader in daemon for issue in reader.issues if issue.severity == "error"
        ),
    )
    # a stack's reader is used once for each of its containers: remove duplicate mistakes
    found = [issue for reader in (*readers, *daemon) for issue in reader.issues]
    return DecodeResult(desired=desired, issues=(*stray, *dict.fromkeys(found)))


def _reader(section: Section, *, package: str, file: str) -> SectionReader:
    if section.type not in DAEMON_KINDS:
        return SectionReader(section, package=package, file=file)
    # only dockerd's sections: the stock init script accepts values there that the schema does not
    tidy, notes = tidied(section)
    reader = SectionReader(tidy, package=package, file=file)
    for note in notes:
        reader.warn(note.wrong, option=note.option, index=note.index, expected=note.better)
    return reader


def _is_ours(section: Section, *, package: str, file: str, stray: list[Issue]) -> bool:
    # `config agent` is only valid in the package `containers`
    kinds = KINDS if package == "containers" else (*DAEMON_KINDS, *KINDS[:-1])
    if section.type in kinds:
        return True
    # luci-app-dockerman keeps daemon settings in its own section: for each, name the option that replaces it
    if package == "dockerd" and section.type == "dockerman" and section.options:
        stray += [
            Issue(
                severity="warning",
                code="unknown-option",
                package="dockerd",
                section=section.name,
                option=option.name,
                file=file,
                line=option.lines[0] if option.lines else section.line,
                message="luci-app-dockerman's, not in force",
                expected=of_dockerman(option.name).text,
            )
            for option in section.options
        ]
        return False
    stray.append(
        Issue(
            severity="warning",
            code="unknown-section",
            package=package,
            section=section.name,
            file=file,
            line=section.line,
            message=shortened(f"{section.type!r} is not a section type of this package, and is ignored"),
            expected=_type_meant(section.type, kinds),
        )
    )
    return False


_OTHER_TYPES = {
    "service": "container",
    "app": "container",
    "image": "container",
    "login": "auth",
    "registry": "auth",
}


def _type_meant(word: str, kinds: Sequence[str]) -> str:
    """A suggestion for an unknown section type."""
    import difflib  # imported only for mistakes

    # words of compose and docker first: `service` does not look similar to any of our types
    near = [
        _OTHER_TYPES.get(word.lower(), ""),
        *difflib.get_close_matches(word.lower()[:32], kinds, n=1, cutoff=0.75),
    ]
    meant = next((kind for kind in near if kind in kinds), "")
    return f"`config {meant} 'NAME'`" if meant else "one of " + ", ".join(kinds)


def _check_names(readers: list[SectionReader]) -> None:
    """Checks that each resource has a stable name, and that names are unique."""
    by_key: dict[str, list[SectionReader]] = {}
    for reader in readers:
        # a login is identified by its server, and there is only one agent section
        if reader.kind in {"auth", "agent"}:
            continue
        # libuci names an anonymous section by its position in the file: an edit above it would change its identity
        if reader.section.anonymous and not reader.text("name"):
            reader.report(
                f"an anonymous {reader.kind} section has no lasting identity",
                expected="a section name" if reader.kind == "notify" else "a section name, or `option name`",
            )
            continue
        if not reader.has("name") and reader.kind not in {"backup", "notify"}:
            # The section's name becomes the Docker name, but UCI allows more names: `_db`, or a single letter.
            # Volumes have the strictest rules.
            strict = VOLUME_NAME.fullmatch(reader.name)
            # the schema's rule for `name` also applies to a section name that becomes the Docker name
            for mistake in () if strict else validate(reader.kind, {"name": reader.name}):
                if mistake.option == "name":
                    wish = f"{mistake.expected}, or `option name`"
                    reader.report("Docker does not accept its name", expected=wish)
        by_key.setdefault(reader.key, []).append(reader)
    for same in by_key.values():
        # both packages may have a section of that name, which are the same resource to us; libuci cannot see that
        for reader in same if len(same) > 1 else ():
            others = sorted(other.package for other in same if other is not reader)
            reader.report(
                f"the section is in package {', '.join(others)} too", expected="one section of this name"
            )


def _draft(readers: list[SectionReader], read_file: Callable[[str], str] | None) -> DecodedSections:
    draft = DecodedSections()
    stacks: list[tuple[SectionReader, Stack]] = []
    for reader in readers:
        match reader.kind:
            case "stack":
                stacks.append((reader, decode_stack(reader, read_file=read_file)))
            case "container":
                draft.containers.append((reader, decode_container(reader, read_file=read_file)))
            case "backup":
                draft.backups.append((reader, decode_backup(reader)))
            case "network":
                draft.networks.append((reader, decode_network(reader)))
            case "volume":
                draft.volumes.append((reader, decode_volume(reader)))
            case "notify":
                draft.notices.append((reader, decode_notify(reader)))
            case "auth":
                draft.auths.append((reader, decode_auth(reader)))
            case _:
                draft.agents.append((reader, decode_agent(reader)))
    # in this order: stacks complete their containers, and backups save the volumes that containers mount
    join_stacks(draft, stacks)
    draft.backups = [(reader, _with_volumes(reader, backup, draft)) for reader, backup in draft.backups]
    return draft


def _desired(draft: DecodedSections, readers: list[SectionReader]) -> Desired:
    accepted = [c for reader, c in draft.containers if not reader.failed]
    # containers that others wait for must stay after they have ended
    awaited = {
        wanted.section
        for container in accepted
        for wanted in container.policy.depends_on
        if wanted.condition is DependsOn.COMPLETED
    }
    # otherwise an ended container would count as drift and be started again
    containers = [replace(c, awaited=c.section in awaited) for c in accepted]
    networks = [n for reader, n in draft.networks if not reader.failed]
    volumes = [v for reader, v in draft.volumes if not reader.failed]
    base = Desired()
    named: list[tuple[SectionReader, Container | Network | Volume]] = [
        *draft.containers,
        *draft.networks,
        *draft.volumes,
    ]
    return Desired(
        # sorted, so that plan and status do not change when sections only change places
        containers=tuple(sorted(containers, key=lambda c: c.section)),
        networks=tuple(sorted(networks, key=lambda n: n.section)),
        volumes=tuple(sorted(volumes, key=lambda v: v.section)),
        auths=tuple(auth for reader, auth in draft.auths if not reader.failed),
        notices=tuple(notice for reader, notice in draft.notices if not reader.failed),
        # an invalid option in the agent section costs only that option
        backups=tuple(backup for reader, backup in draft.backups if not reader.failed),
        agent=draft.agents[0][1] if draft.agents else base.agent,
        broken=frozenset(reader.key for reader in readers if reader.failed),
        # includes broken sections: their images are still wanted and must not be cleaned up
        images={
            c.spec.image: c.section
            for _, c in sorted(draft.containers, key=lambda pair: pair[1].section, reverse=True)
            if c.spec.image
        },
        # names of broken sections stay ours: their containers are not foreign, and nothing else may take the names
        claimed=frozenset(Key(reader.kind, resource.name) for reader, resource in named if reader.failed),
    )


# Stacks: containers with the same `option stack NAME` share an environment and, if they name no network, a network.
#
# Stacks are expanded here, before anything else sees the sections: the rest of the agent sees plain containers and
# networks. A stack without members has no network, so the network is removed with the last member.


def decode_stack(reader: SectionReader, *, read_file: ReadFile | None) -> Stack:
    """A `config stack` section."""
    return Stack(
        name=reader.name,
        env=environment(reader, read_file),
        unread=tuple(reader.away),
        zone=reader.text("zone") or "docker",
        subnets=reader.texts("subnet"),
    )


def join_stacks(draft: DecodedSections, stacks: Sequence[tuple[SectionReader, Stack]]) -> None:
    """Gives each container the settings of its stack, and adds a network for each stack with a container that needs one."""
    by_name = {stack.name: (reader, stack) for reader, stack in stacks}
    needed: dict[str, tuple[SectionReader, Stack]] = {}
    for place, (reader, container) in enumerate(draft.containers):
        if container.stack:
            # a stack needs no section of its own: its name alone puts containers into one network
            source, stack = by_name.get(container.stack, (reader, Stack(name=container.stack)))
            draft.containers[place] = (reader, _joined(container, stack))
            # without the stack's settings the container might start with half of its environment
            if source.kind == "stack" and source.failed:
                reader.report(
                    f"the stack {container.stack} has a mistake, so what it shares is not known",
                    option="stack",
                    expected="the stack's section without mistakes",
                )
            if _needs_network(container) or stack.name in {e.network for e in container.spec.endpoints}:
                needed.setdefault(container.stack, (source, stack))
    # a declared network of that name takes precedence: this is how to set its driver and options
    declared = {network.section for _, network in draft.networks}
    for name, (source, stack) in needed.items():
        if name not in declared:
            # as if a `config network` section of that name were at the place of the stack, or of its first container
            options = (Option(name="zone", value=stack.zone), Option(name="subnet", value=stack.subnets))
            section = Section(type="network", name=stack.name, options=options, line=source.section.line)
            network = SectionReader(section, package=source.package, file=source.file)
            draft.networks.append((network, decode_network(network)))
    members = {container.stack for _, container in draft.containers}
    for name, (reader, _) in by_name.items():
        if name not in members:
            reader.warn(
                "no container is in this stack", expected=f"`option stack '{name}'` in a container section"
            )


def _needs_network(container: Container) -> bool:
    return not container.spec.endpoints and container.spec.network_mode is None


def _joined(container: Container, stack: Stack) -> Container:
    # a container's own values override the stack's, as specific settings always do
    spec = replace(container.spec, env=tuple(sorted({**dict(stack.env), **dict(container.spec.env)}.items())))
    if _needs_network(container):
        # the engine itself resolves Docker names
        aliases = () if container.name == container.section else (container.section,)
        spec = replace(spec, endpoints=(Endpoint(network=stack.name, aliases=aliases),))
    return replace(container, spec=spec, unread=(*container.unread, *stack.unread))
