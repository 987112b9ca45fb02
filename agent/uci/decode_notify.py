# SPDX-License-Identifier: GPL-2.0-or-later
"""Decodes a `config notify` section. A mistake in a secret option is reported without its value."""

from __future__ import annotations

from agent.model.notices import DEFAULT_EVENTS, Event, NotifySection, check_template
from agent.model.quantities import parse_seconds
from agent.uci.reader import SectionReader

# options that have a meaning for one type alone
_ONLY = {
    "webhook": ("header",),
    "mqtt": ("topic", "retain", "username", "password"),
    "exec": ("command",),
}
_NEEDED = {
    "webhook": ("url", "https://ntfy.sh/my-topic"),
    "mqtt": ("url", "mqtt://192.168.1.2"),
    "exec": ("command", "/path/of/a/program"),
}
_SCHEMES = {"webhook": ("http", "https"), "mqtt": ("mqtt", "mqtts")}


def decode_notify(reader: SectionReader) -> NotifySection:
    base = NotifySection(section=reader.name, type=reader.text("type") or "")
    _check_type(reader, base.type)
    enabled, retain = reader.flag("enabled"), reader.flag("retain")
    cooldown_s, timeout_s = reader.parsed("cooldown", parse_seconds), reader.parsed("timeout", parse_seconds)
    form = reader.text("format") or base.format
    events = frozenset(Event(text) for text in reader.texts("event"))
    # Without `list event` the usual ones are meant: a section that tells nothing would be of no use.
    return NotifySection(
        section=reader.name,
        type=base.type,
        enabled=base.enabled if enabled is None else enabled,
        events=events or DEFAULT_EVENTS,
        cooldown_s=base.cooldown_s if cooldown_s is None else cooldown_s,
        url=reader.text("url") or "",
        headers=reader.values("header", _parse_header),
        format=form,
        template=reader.parsed("template", lambda text: check_template(text, as_json=form == "json")) or "",
        cacert=reader.text("cacert") or "",
        topic=reader.parsed("topic", check_template) or base.topic,
        retain=bool(retain),
        username=reader.text("username") or "",
        password=reader.text("password") or "",
        command=reader.words("command") or (),
        timeout_s=timeout_s or base.timeout_s,
    )


def _parse_header(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    return name, check_template(value.strip())


def _check_type(reader: SectionReader, kind: str) -> None:
    if not kind:
        return
    option, example = _NEEDED[kind]
    if not reader.has(option):
        form = "list" if option == "command" else "option"
        reader.report(f"a {kind} needs `{option}`", expected=f"`{form} {option} '{example}'`")
    scheme = (reader.text("url") or "").partition("://")[0]
    if scheme and kind in _SCHEMES and scheme not in _SCHEMES[kind]:
        wish = " or ".join(f"{each}://" for each in _SCHEMES[kind])
        reader.report(
            f"{scheme}:// is not for type {kind}",
            option="url",
            expected=f"an address that begins with {wish}",
        )
    # a warning only: such an option is left over from another type, and harms nothing
    for other, names in _ONLY.items():
        for name in names:
            if other != kind and reader.has(name):
                reader.warn(
                    f"has no effect: it is for type {other}", option=name, expected="a section without it"
                )
