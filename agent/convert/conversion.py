# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of an import: sections, files, and a report with a line for each flag or key.

Parts of the new sections that `decode` refuses are removed again, and the report says why. So the result passes
`ucidockd check` together with the existing sections.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from agent.model.issues import Issue
from agent.model.secrets import hidden_text
from agent.schema.validate import is_list, properties
from agent.uci.decode import decode
from agent.uci.decode_network import BRIDGE_NAME, INTERFACE_NAME_MAX, bridge_name
from agent.uci.syntax import Option, Package, Section, format_file

PACKAGE = "containers"
_TEXT_MAX = 300  # characters of one line of the report


class Verdict(StrEnum):
    """What happened to a flag or key."""

    TAKEN = "taken"
    CHANGED = "changed"
    LEFT_OUT = "left out"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the report. `where`: `--publish`, `services.web.ports[0]`; `text` is "" if the key was simply taken."""

    where: str
    verdict: Verdict
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file that the sections need: a secret or config of a compose file. Written with mode 0600."""

    path: str
    content: str


class SectionDraft:
    """A section under construction, with options in the order in which they were set."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        # whether it is made because a container names it, and not for a line of its own such as `docker network create`
        self.is_for_containers = kind in ("network", "volume")
        self.options: dict[str, str | list[str]] = {}
        self.sources: dict[tuple[str, int | None], str] = {}  # where each value came from, for the report

    def put(self, option: str, value: str, where: str = "") -> None:
        """Sets an option, or adds an item to a list."""
        if not is_list(self.kind, option):
            self.options[option] = value
            # kept, so that a mistake in the section is reported at its place in the source
            self.sources[option, None] = where
            return
        items = self.options.setdefault(option, [])
        assert isinstance(items, list)
        self.sources[option, len(items)] = where
        items.append(value)

    def put_words(self, option: str, words: list[str], where: str) -> None:
        """Sets an option that may be text or a list to a list."""
        self.options[option] = words
        self.sources[option, None] = where

    def knows(self, option: str) -> bool:
        """Whether sections of this kind have such an option."""
        return option in properties(self.kind)

    def items(self, option: str) -> list[str]:
        """The items of a list so far."""
        found = self.options.get(option, [])
        return found if isinstance(found, list) else [found]

    def drop(self, option: str, index: int | None) -> str:
        """Removes a value again; returns where it came from."""
        items = self.options.get(option)
        if index is None or not isinstance(items, list):
            self.options.pop(option, None)
            return next((w for (o, _), w in self.sources.items() if o == option), "")
        where = self.sources.get((option, index), "")
        del items[index]
        # items after it move up, and their sources with them
        rest = [self.sources.get((option, at), "") for at in range(len(items) + 1) if at != index]
        self.sources = {place: w for place, w in self.sources.items() if place[0] != option}
        self.sources |= {(option, at): w for at, w in enumerate(rest)}
        if not items:
            del self.options[option]
        return where

    def section(self) -> Section:
        """The section as the UCI parser would have read it."""
        order = list(properties(self.kind))  # name and image first
        known = sorted(
            self.options.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order)
        )
        made = ((name, tuple(v) if isinstance(v, list) else v) for name, v in known)
        return Section(
            type=self.kind,
            name=self.name,
            options=tuple(Option(name=name, value=value) for name, value in made),
        )


@dataclass(slots=True, kw_only=True)
class Conversion:
    """Everything that one import makes. `taken_names`: names of existing sections, which new ones must not use.

    `networks_there`: Docker name -> section of networks that have a section already.
    """

    taken_names: set[str] = field(default_factory=set)
    networks_there: Mapping[str, str] = field(default_factory=dict)
    drafts: list[SectionDraft] = field(default_factory=list)
    report: list[Line] = field(default_factory=list)
    files: list[NewFile] = field(default_factory=list)
    containers_made: int = 0

    def draft(self, kind: str, name: str, *, prefix: str = "") -> SectionDraft:
        """Adds a section named `name` if that is free, else with the prefix or a number."""
        draft = SectionDraft(kind, self.free_name(name, prefix=prefix))
        self.taken_names.add(draft.name)
        self.drafts.append(draft)
        return draft

    def free_name(self, name: str, *, prefix: str = "") -> str:
        """A free section name: UCI allows letters, digits and `_`, and each name once per file."""
        base = re.sub(r"[^A-Za-z0-9_]", "_", name)
        base = base if len(base) > 1 else f"app_{base}"  # Docker requires at least two characters
        longer = re.sub(r"[^A-Za-z0-9_]", "_", f"{prefix}_{name}") if prefix else base
        numbered = (f"{longer}{number}" for number in range(2, len(self.taken_names) + 3))
        return next(found for found in (base, longer, *numbered) if found not in self.taken_names)

    def note(self, where: str, verdict: Verdict, text: str = "") -> None:
        """Adds a line to the report. Secrets are hidden."""
        self.report.append(Line(where=where, verdict=verdict, text=hidden_text(text)[:_TEXT_MAX]))

    def taken(self, where: str) -> None:
        self.note(where, Verdict.TAKEN)

    def changed(self, where: str, text: str) -> None:
        self.note(where, Verdict.CHANGED, text)

    def left_out(self, where: str, text: str) -> None:
        self.note(where, Verdict.LEFT_OUT, text)

    def unknown(self, where: str, text: str) -> None:
        self.note(where, Verdict.UNKNOWN, text)

    def finish(
        self,
        packages: Mapping[str, Package],
        *,
        read_file: Callable[[str], str] | None = None,
    ) -> tuple[Issue, ...]:
        """Removes what `decode` refuses together with the sections in `packages`; returns the remaining warnings."""
        written = {file.path: file.content for file in self.files}
        self.containers_made = sum(draft.kind == "container" for draft in self.drafts)
        self._name_bridges(packages)
        # repeat until nothing is removed: something may refer to what was removed, and is then refused too

        def read(path: str) -> str:
            return written[path] if path in written or read_file is None else read_file(path)

        while True:
            names = {draft.name: draft for draft in self.drafts}
            issues = [
                i
                for i in self._issues(packages, read if read_file or written else None)
                if i.section in names
            ]
            errors = [issue for issue in issues if issue.severity == "error"]
            if errors:
                self._take_out(names, errors)
            elif not self._leave_out_unused():
                return tuple(issues)

    def _name_bridges(self, packages: Mapping[str, Package]) -> None:
        """Sets the bridge name of networks that would share one: it has room for the first letters of a section only,
        which are the same for all networks of a project with a longer name.
        """
        desired = decode(packages, paths={}, read_file=None).desired
        taken = {dict(network.spec.options).get(BRIDGE_NAME, "") for network in desired.networks}
        networks = {draft.name: draft for draft in self.drafts if draft.kind == "network"}
        # a stack without a section of its own has a network too, if a container names it or no network at all
        for draft in self.drafts:
            named = [item.partition(",")[0] for item in draft.items("network") or draft.items("network_mode")]
            stack = next(iter(draft.items("stack")), "")
            if stack and stack not in networks and (not named or stack in named):
                taken.add(bridge_name(stack))
        unnamed = []
        for draft in networks.values():
            own = [item for item in draft.items("opt") if item.startswith(f"{BRIDGE_NAME}=")]
            taken |= {item.partition("=")[2] for item in own}
            is_bridge = draft.options.get("driver", "bridge") == "bridge" and "external" not in draft.options
            if is_bridge and not own:
                unnamed.append(draft)
        for draft in unnamed:
            short = bridge_name(draft.name)
            numbered = (f"{short[: INTERFACE_NAME_MAX - len(str(n))]}{n}" for n in range(2, len(taken) + 3))
            name = next(found for found in (short, *numbered) if found not in taken)
            taken.add(name)
            if name != short:
                draft.put("opt", f"{BRIDGE_NAME}={name}")
                self.changed(
                    f"network {draft.name}", f"its bridge is called {name}: {short} is another network's"
                )

    def _leave_out_unused(self) -> bool:
        """Removes the networks and volumes of containers that were left out; returns whether there were some."""
        containers = [draft for draft in self.drafts if draft.kind == "container"]
        if len(containers) == self.containers_made:
            return False
        self.containers_made = len(containers)
        used = {item.partition(",")[0] for draft in containers for item in draft.items("network")}
        used |= {item.partition(":")[0] for draft in containers for item in draft.items("volume")}
        used |= {item for draft in containers for item in draft.items("stack")}
        for draft in [draft for draft in self.drafts if draft.is_for_containers and draft.name not in used]:
            self.drafts.remove(draft)
            self.left_out(f"{draft.kind} {draft.name}", "the container that needs it is left out")
        return True

    def _issues(
        self, packages: Mapping[str, Package], read_file: Callable[[str], str] | None
    ) -> tuple[Issue, ...]:
        package = packages.get(PACKAGE, Package(name=PACKAGE))
        sections = (*package.sections, *(draft.section() for draft in self.drafts))
        every = {**packages, PACKAGE: replace(package, sections=sections)}
        return decode(every, paths={}, read_file=read_file).issues

    def _take_out(self, names: Mapping[str, SectionDraft], errors: Iterable[Issue]) -> None:
        """Removes refused values, from the end so that indexes stay valid. With a wrong name, image or network mode
        the whole section goes.
        """
        # a refused value would keep the whole file from being committed
        told: list[tuple[str, str]] = []
        for issue in sorted(errors, key=lambda i: -1 if i.index is None else i.index, reverse=True):
            draft = names[issue.section]
            wish = f" (expected {issue.expected})" if issue.expected else ""
            # without its network mode a container would run in another network, and bypass a VPN for example
            is_whole = issue.option in {"", "image", "name", "network_mode"}
            if is_whole or issue.option not in draft.options:
                if draft in self.drafts:
                    self.drafts.remove(draft)
                    place = f"{issue.option}: " if issue.option else ""
                    told.append((f"{draft.kind} {draft.name}", f"{place}{issue.message}{wish}"))
                continue
            where = draft.drop(issue.option, issue.index) or f"{draft.name}.{issue.option}"
            # replace the line that said "taken", which contradicts the new one
            self.report = [line for line in self.report if line.where != where]
            if issue.option == "restart":
                # without the option the container would always be restarted, which the input did not ask for
                draft.put("restart", "no", where)
                wish += "; it becomes `option restart no`"
            told.append((where, f"{issue.message}{wish}"))
        for where, text in reversed(told):
            self.left_out(where, text)

    def as_json(self, warnings: Iterable[Issue] = ()) -> dict[str, Any]:
        """The answer of `POST /v1/import`. The sections contain what the request contained, including secrets."""
        sections = tuple(draft.section() for draft in self.drafts)
        return {
            "sections": [
                {
                    "type": s.type,
                    "name": s.name,
                    "options": {
                        o.name: list(o.value) if isinstance(o.value, tuple) else o.value for o in s.options
                    },
                }
                for s in sections
            ],
            "text": format_file(Package(name=PACKAGE, sections=sections)).strip("\n") + "\n"
            if sections
            else "",
            # `where` quotes the source, and may contain a secret
            "report": [{**asdict(line), "where": hidden_text(line.where)} for line in self.report],
            "files": [asdict(file) for file in self.files],
            "warnings": [issue.text() for issue in warnings],
        }
