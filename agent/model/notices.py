# SPDX-License-Identifier: GPL-2.0-or-later
"""Notices: the content of a `config notify` section, the events, and the text that is sent."""

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
    """The events of notices (`list event`), in the order of docs/notices.md."""

    DEGRADED = "degraded"
    RECOVERED = "recovered"
    ROLLEDBACK = "rolledback"
    CRASHLOOP = "crashloop"
    UNHEALTHY = "unhealthy"
    UPDATE = "update"
    WAITING = "waiting"
    DISKFULL = "diskfull"
    DAEMON = "daemon"
    TEST = "test"  # only sent by a test of the section, whatever it lists


# not `waiting`: what a section waits for mostly comes by itself
DEFAULT_EVENTS = frozenset(Event) - {Event.WAITING, Event.TEST}
PLACEHOLDERS = (
    "event", "key", "kind", "section", "name", "level", "condition", "reason", "label", "message", "title", "host", "time",
)  # fmt: skip
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_PARTS = re.compile(r"[\s/?&=:;,]+")
_LEAST = 5  # minimum length of a part that counts as a secret; shorter ones may be common words
_PLAIN = "{title}\n{message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """One notice. `time` and `since`: unix seconds. Its texts come from the status board, which masks secrets."""

    event: Event
    key: str = ""  # of the resource, `container:web`
    kind: str = ""
    section: str = ""
    name: str = ""
    level: str = ""
    condition: str = ""
    reason: str = ""
    label: str = ""  # a few words, such as `Keeps crashing`
    message: str = ""
    output: str = ""  # the last lines of a failed container's output
    since: float = 0.0
    time: float = 0.0
    host: str = ""

    @property
    def title(self) -> str:
        """One line for people."""
        return f"{self.name}: {self.label or self.event}"

    def as_json(self) -> dict[str, Any]:
        """The JSON document for receivers."""
        return {**asdict(self), "title": self.title}

    def values(self) -> dict[str, str]:
        """The values of placeholders and environment variables."""
        found = self.as_json()
        return {name: str(round(found[name]) if name == "time" else found[name]) for name in PLACEHOLDERS}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NotifySection:
    """A `config notify` section. Its repr hides its secrets, because even the URL may be one."""

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
        """Secrets that a receiver may echo, including parts of the URL and headers. They must appear nowhere."""
        found = [self.password, *secrets_in((self.url,)), *secrets_in(self.command)]
        for text in (self.url.partition("://")[2].partition("/")[2], *(value for _, value in self.headers)):
            found += [word for word in _PARTS.split(text) if len(word) >= _LEAST]
        return found

    def body(self, news: News) -> str:
        """The body to send."""
        values = news.values()
        if self.template:
            return filled(self.template, values, as_json=self.format == "json")
        return filled(_PLAIN, values) if self.format == "text" else json.dumps(news.as_json())


def filled(template: str, values: Mapping[str, str], *, as_json: bool = False) -> str:
    """A template with its placeholders filled in. `as_json`: they are inside JSON strings."""

    def value(found: re.Match[str]) -> str:
        text = values.get(found[1])
        # braces that are none of our placeholders stay: a template may be JSON
        if text is None:
            return found[0]
        return json.dumps(text)[1:-1] if as_json else text

    return _PLACEHOLDER.sub(value, template)


def check_template(text: str, *, as_json: bool = False) -> str:
    """The template unchanged. Raises QuantityError, which quotes nothing but the name of a placeholder."""
    # the template may contain a token, so the message quotes nothing else of it
    unknown = next((name for name in _PLACEHOLDER.findall(text) if name not in PLACEHOLDERS), None)
    if unknown is not None:
        raise QuantityError(f"unknown placeholder {{{unknown[:32]}}}", f"one of {', '.join(PLACEHOLDERS)}")
    if as_json:
        try:
            # tested with a harmless text in every place, because values only exist when an event occurs
            json.loads(filled(text, dict.fromkeys(PLACEHOLDERS, "x"), as_json=True))
        except (ValueError, RecursionError) as exc:
            raise QuantityError(
                "the template does not give JSON",
                'JSON such as {"text": "{title}"}, or `option format \'text\'`',
            ) from exc
    return text
