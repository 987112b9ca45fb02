# SPDX-License-Identifier: GPL-2.0-or-later
"""Stacks: containers of one `option stack NAME` share an environment and, where they name no network, one of their own.

That is written out here, before anything else looks at the sections: the rest of the agent sees plain containers and
networks. The network of a stack without members is not there, so it goes when the last one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.model.resources import Container, Endpoint, Stack
from agent.uci.crosscheck import Draft
from agent.uci.decode_container import ReadFile, environment
from agent.uci.decode_network import decode_network
from agent.uci.reader import SectionReader
from agent.uci.syntax import Option, Section


def decode_stack(reader: SectionReader, *, read_file: ReadFile | None) -> Stack:
    """A `config stack` section."""
    return Stack(
        name=reader.name,
        env=environment(reader, read_file),
        zone=reader.text("zone") or "docker",
        subnets=reader.texts("subnet"),
    )


def join_stacks(draft: Draft, stacks: Sequence[tuple[SectionReader, Stack]]) -> None:
    """Give each container what its stack shares, and each stack with a container that needs it its network."""
    by_name = {stack.name: (reader, stack) for reader, stack in stacks}
    needed: dict[str, tuple[SectionReader, Stack]] = {}
    for place, (reader, container) in enumerate(draft.containers):
        if container.stack:
            source, stack = by_name.get(container.stack, (reader, Stack(name=container.stack)))
            draft.containers[place] = (reader, _joined(container, stack))
            if source.kind == "stack" and source.failed:
                reader.report(
                    f"the stack {container.stack} has a mistake, so what it shares is not known",
                    option="stack",
                    expected="the stack's section without mistakes",
                )
            if _needs_network(container) or stack.name in {e.network for e in container.spec.endpoints}:
                needed.setdefault(container.stack, (source, stack))
    declared = {network.section for _, network in draft.networks}
    for name, (source, stack) in needed.items():
        if name not in declared:
            _add_network(draft, stack, source)
    members = {container.stack for _, container in draft.containers}
    for name, (reader, _) in by_name.items():
        if name not in members:
            reader.warn(
                "no container is in this stack", expected=f"`option stack '{name}'` in a container section"
            )


def _needs_network(container: Container) -> bool:
    return not container.spec.endpoints and container.spec.network_mode is None


def _joined(container: Container, stack: Stack) -> Container:
    spec = replace(container.spec, env=tuple(sorted({**dict(stack.env), **dict(container.spec.env)}.items())))
    if _needs_network(container):
        # the engine resolves Docker names by itself
        aliases = () if container.name == container.section else (container.section,)
        spec = replace(spec, endpoints=(Endpoint(network=stack.name, aliases=aliases),))
    return replace(container, spec=spec)


def _add_network(draft: Draft, stack: Stack, source: SectionReader) -> None:
    """As if a `config network` section of that name were written where the stack is, or its first container."""
    options = (Option(name="zone", value=stack.zone), Option(name="subnet", value=stack.subnets))
    section = Section(type="network", name=stack.name, options=options, line=source.section.line)
    reader = SectionReader(section, package=source.package, file=source.file)
    draft.networks.append((reader, decode_network(reader)))
