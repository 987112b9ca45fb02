# SPDX-License-Identifier: GPL-2.0-or-later
"""Notices: what a `config notify` section says, what is told, and the text that becomes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from agent.model.quantities import QuantityError
from agent.model.secrets import secrets_in


class Event(StrEnum):
    """What a notice can be about (`list event`), in the order of docs/notices.md."""

    DEGRADED = "degraded"
    RECOVERED = "recovered"
    ROLLEDBACK = "rolledback"
    CRASHLOOP = "crashloop"
    UNHEALTHY = "unhealthy"
    UPDATE = "update"
    WAITING = "waiting"
    DISKFULL = "diskfull"
    DAEMON = "daemon"
    TEST = "test"  # sent to the section that is tried, whatever it lists


DEFAULT_EVENTS = frozenset(Event) - {Event.WAITING, Event.TEST}
PLACEHOLDERS = (
    "event", "key", "kind", "section", "name", "level", "condition", "reason", "label", "message", "title", "host", "time",
)  # fmt: skip
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_PARTS = re.compile(r"[\s/?&=:;,]+")
_LEAST = 5  # characters of a part that is told from a common word
_PLAIN = "{title}\n{message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """One notice. `time` and `since`: unix seconds. Its texts were on the status board, so they have no secrets."""

    event: Event
    key: str = ""  # of the resource, `container:web`
    kind: str = ""
    section: str = ""
    name: str = ""
    level: str = ""
    condition: str = ""
    reason: str = ""
    label: str = ""  # a few words: `Keeps crashing`
    message: str = ""
    output: str = ""  # the last lines of the container, where it failed
    since: float = 0.0
    time: float = 0.0
    host: str = ""

    @property
    def title(self) -> str:
        """One line for people."""
        return f"{self.name}: {self.label or self.event}"

    def as_json(self) -> dict[str, Any]:
        """The document that receivers of JSON get."""
        return {**asdict(self), "title": self.title}

    def values(self) -> dict[str, str]:
        """What placeholders and variables stand for."""
        found = self.as_json()
        return {name: str(round(found[name]) if name == "time" else found[name]) for name in PLACEHOLDERS}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NotifySection:
    """A `config notify` section. Its repr never shows its secrets: a URL may be one."""

    section: str
    type: str  # webhook, mqtt or exec
    enabled: bool = True
    events: frozenset[Event] = DEFAULT_EVENTS
    cooldown_s: float = 600.0
    url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    format: str = "json"  # or text
    template: str = ""
    cacert: str = ""
    topic: str = "ucidockd/{event}"
    retain: bool = False
    username: str = ""
    password: str = ""
    command: tuple[str, ...] = ()
    timeout_s: float = 30.0

    def __repr__(self) -> str:
        return f"NotifySection({self.section!r}, {self.type!r}, ***)"

    def secrets(self) -> list[str]:
        """Secrets that a receiver may echo: parts of the address and of headers. They must appear nowhere."""
        found = [self.password, *secrets_in((self.url,)), *secrets_in(self.command)]
        for text in (self.url.partition("://")[2].partition("/")[2], *(value for _, value in self.headers)):
            found += [word for word in _PARTS.split(text) if len(word) >= _LEAST]
        return found

    def body(self, news: News) -> str:
        """What the receiver gets."""
        values = news.values()
        if self.template:
            return filled(self.template, values, as_json=self.format == "json")
        return filled(_PLAIN, values) if self.format == "text" else json.dumps(news.as_json())


def filled(template: str, values: Mapping[str, str], *, as_json: bool = False) -> str:
    """A template with its placeholders filled in. `as_json`: they stand inside JSON strings."""

    def value(found: re.Match[str]) -> str:
        text = values.get(found[1])
        if text is None:
            return found[0]
        return json.dumps(text)[1:-1] if as_json else text

    return _PLACEHOLDER.sub(value, template)


def check_template(text: str, *, as_json: bool = False) -> str:
    """The same text. Raises QuantityError, which shows nothing but the name of a placeholder."""
    # The template itself may hold a token: nothing else of it goes into the message.
    unknown = next((name for name in _PLACEHOLDER.findall(text) if name not in PLACEHOLDERS), None)
    if unknown is not None:
        raise QuantityError(f"unknown placeholder {{{unknown[:32]}}}", f"one of {', '.join(PLACEHOLDERS)}")
    if as_json:
        try:
            # Tried with a harmless text in every place, as the values only exist when something happens.
            json.loads(filled(text, dict.fromkeys(PLACEHOLDERS, "x"), as_json=True))
        except (ValueError, RecursionError) as exc:
            raise QuantityError(
                "the template does not give JSON",
                'JSON such as {"text": "{title}"}, or `option format \'text\'`',
            ) from exc
    return text
