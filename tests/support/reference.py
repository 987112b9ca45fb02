# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the reference of all options from the schemas: part of `make manual`. A test fails when it is out of date."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
FOLDER = PROJECT / "docs/reference"
_LICENCE = "<!-- SPDX-License-Identifier: GPL-2.0-or-later -->\n<!-- made by `make manual`: do not edit -->"

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section type: how to write it, and remarks besides its options."""

    kind: str
    head: str
    text: str


_CONTAINERS = (
    Section(
        kind="container",
        head="config container 'web'",
        text=(
            "One container. Only `image` is required. The section's name is the container's name unless `option name` gives"
            " another."
        ),
    ),
    Section(
        kind="network",
        head="config network 'front'",
        text=("One network. Containers that share one reach each other by name and alias."),
    ),
    Section(
        kind="volume",
        head="config volume 'data'",
        text=(
            "A named volume with options of its own. A plain volume needs no section: `list volume 'data:/data'` is enough."
            " Changed options are not applied to a volume that exists, because that would delete its data."
        ),
    ),
    Section(
        kind="stack",
        head="config stack 'media'",
        text=(
            "What the containers with `option stack 'media'` share. The section is optional: without it they have a network"
            " of that name in common. In that network they reach each other by the names of their sections."
        ),
    ),
    Section(
        kind="backup",
        head="config backup 'nightly'",
        text="Which volumes are saved, when and where. See [backup](../backup.md).",
    ),
    Section(
        kind="auth",
        head="config auth 'ghcr'",
        text="A login at a registry. Used from the next pull on.",
    ),
    Section(
        kind="notify",
        head="config notify 'phone'",
        text="Where notices go, and what about. [The page about notices](../notices.md) has recipes for many receivers.",
    ),
    Section(
        kind="agent",
        head="config agent 'agent'",
        text=("The agent's own settings. There is one such section."),
    ),
)
_DOCKERD = (
    Section(
        kind="globals",
        head="config globals 'globals'",
        text="dockerd's settings. Most are written to its `daemon.json`.",
    ),
    Section(
        kind="proxies",
        head="config proxies 'proxies'",
        text="The proxies that dockerd pulls images through.",
    ),
    Section(
        kind="tls",
        head="config tls 'tls'",
        text="Who may use dockerd over TCP. [The page about TLS](../tls.md) has the whole way.",
    ),
    Section(
        kind="firewall",
        head="config firewall",
        text=(
            "Which interfaces cannot open connections to containers. One section for each bridge."
            " [More](../firewall.md)."
        ),
    ),
)
SECTIONS = (*_CONTAINERS, *_DOCKERD)
_TABS = {
    "general": "General",
    "door": "Access",
    "network": "Network",
    "storage": "Storage",
    "environment": "Environment",
    "resources": "Resources",
    "devices": "Devices and rights",
    "health": "Health and log",
    "policy": "Policy",
    "addresses": "Addresses",
    "more": "More",
    "registries": "Registries",
    "defaults": "Container defaults",
    "compatibility": "Compatibility",
    "updates": "Updates",
    "cleanup": "Clean-up",
}
_EFFECTS = {
    "nothing": "nothing",
    "update": "in place",
    "run": "start or stop",
    "recreate": "new container",
    "replace": "new network",
    "fixed": "new volumes only",
    "agent": "at the agent's next start",
    "reload": "reload",
    "restart": "restart",
    "stop": "restart, containers stop",
}


def documents() -> dict[Path, str]:
    """Every file that this module writes, with its text."""
    return {
        FOLDER / "containers.md": _page(
            "Options of /etc/config/containers",
            (
                "The last column says what happens to a running container when you change the option. `nothing`: it keeps"
                " running as it is. `in place`: it is changed while it runs. `new container`: a new one replaces it, and"
                " the old one comes back if the new one fails. `new network`: the network is made again, and its containers"
                " are disconnected meanwhile. `new volumes only`: a volume that exists stays as it is."
            ),
            _CONTAINERS,
        ),
        FOLDER / "dockerd.md": _page(
            "Options of /etc/config/dockerd",
            (
                "The last column says what dockerd does when you change the option. With `reload`, `restart` and `in place`"
                " containers keep running. `restart, containers stop` stops containers and starts them again."
            ),
            _DOCKERD,
        ),
    }


def _page(title: str, effects: str, sections: tuple[Section, ...]) -> str:
    out = [_LICENCE, f"# {title}", ""]
    out += [
        "An `option` has one value. Write a `list` line for each value of a list. Where a form says 0 or 1, `no yes off on",
        "false true` work as well. Without a default, the image's or the engine's own default holds.",
        "`ucidockd check` finds every mistake.",
        "",
        effects,
        "",
    ]
    out += [f"- [`{section.head}`](#{_anchor(section.head)})" for section in sections]
    for section in sections:
        schema = json.loads((PROJECT / f"schemas/{section.kind}.schema.json").read_text())
        out += ["", f"## `{section.head}`", "", section.text]
        for title_of_tab, options in _by_tab(schema):
            if title_of_tab:
                out += ["", f"### {title_of_tab}"]
            out += _table(schema, options)
    return "\n".join(out) + "\n"


def _anchor(head: str) -> str:
    return "".join(c for c in head.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def _by_tab(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """The options in the groups of LuCI's form; a single group has no title."""
    properties: Schema = schema["properties"]
    tabs = [tab for tab in _TABS if any(entry.get("x-tab") == tab for entry in properties.values())]
    for tab in tabs:
        title = _TABS[tab] if len(tabs) > 1 else ""
        yield title, {name: entry for name, entry in properties.items() if entry.get("x-tab") == tab}


def _table(schema: Schema, options: Schema) -> list[str]:
    required = set(schema.get("required", ()))
    lines = ["", "| option | what it is | default | example | change |", "|---|---|---|---|---|"]
    for name, entry in options.items():
        default = entry.get("default")
        cells = [
            f"`{_word(entry)} {name}`",
            _what(entry) + (" **Required.**" if name in required else ""),
            f"`{default}`" if isinstance(default, str) and default else "",
            f"`{_example(entry)}`" if entry.get("examples") else "",
            _EFFECTS[entry["x-effect"]],
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def _word(entry: Schema) -> str:
    return "list" if "array" in entry["type"] else "option"


def _what(entry: Schema) -> str:
    """The description, plus the form unless the description already shows it."""
    text: str = entry.get("description", "").rstrip(".")
    rule = entry.get("items", entry)
    form = rule.get("x-expected", "")
    if form.startswith("1 (yes"):
        form = "0 or 1"
    elif "enum" in rule and not form:
        form = ", ".join(f"`{value}`" for value in rule["enum"])
    return f"{text}. Form: {form}." if form and form not in text else f"{text}."


def _example(entry: Schema) -> object:
    """An example that is not the default, if there is one."""
    examples = [one[0] if isinstance(one, list) else one for one in entry["examples"]]
    return next((one for one in examples if one != entry.get("default")), examples[0])
