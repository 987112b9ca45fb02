# SPDX-License-Identifier: GPL-2.0-or-later
"""`config notify` sections: what they mean, and what is said of their mistakes."""

from __future__ import annotations

import pytest

from agent.model.issues import Issue
from agent.model.notices import DEFAULT_EVENTS, Event, NotifySection
from agent.uci.decode import DecodeResult, decode
from agent.uci.syntax import parse

SECRET = "S3CRET"


def decoded(options: str, head: str = "config notify 'phone'") -> DecodeResult:
    lines = "".join(f"\t{line.strip()}\n" for line in options.split(";") if line.strip())
    text = f"{head}\n{lines}"
    return decode(
        {"containers": parse(text, package="containers")}, paths={"containers": "/etc/config/containers"}
    )


def section(options: str) -> NotifySection:
    found = decoded(options)
    assert found.issues == ()
    (made,) = found.desired.notices
    return made


def issue(options: str, **how: str) -> Issue:
    (found,) = decoded(options, **how).issues
    assert SECRET not in found.text()
    assert found.file == "/etc/config/containers"
    assert found.line
    return found


def test_the_least_that_each_type_needs() -> None:
    made = section("option type 'webhook'; option url 'https://ntfy.sh/x'")
    assert (made.events, made.cooldown_s, made.format, made.enabled) == (DEFAULT_EVENTS, 600.0, "json", True)
    assert Event.WAITING not in made.events
    assert Event.UPDATE in made.events
    assert section("option type 'mqtt'; option url 'mqtt://192.168.1.2'").topic == "ucidockd/{event}"
    assert section("option type 'exec'; option command '/bin/notify \"a b\"'").command == (
        "/bin/notify",
        "a b",
    )


def test_everything() -> None:
    made = section(
        "option type 'webhook'; option url 'https://h/x'; list event 'waiting'; list event 'crashloop'; option cooldown '0'"
        "; list header 'Title: {title}'; option format 'text'; option template '{name}: {message}'; option timeout '5s'"
        "; option cacert '/etc/ca.pem'; option enabled '0'"
    )
    assert made.events == {Event.WAITING, Event.CRASHLOOP}
    assert (made.headers, made.template) == ((("Title", "{title}"),), "{name}: {message}")
    assert (made.cooldown_s, made.timeout_s, made.cacert, made.enabled) == (0.0, 5.0, "/etc/ca.pem", False)


@pytest.mark.parametrize(
    ("options", "option", "expected"),
    [
        ("option type 'webhook'", "", "option url"),
        ("option type 'exec'", "", "list command"),
        ("option type 'mail'; option url 'https://h/'", "type", "webhook, mqtt, exec"),
        (f"option type 'webhook'; option url 'ntfy.sh/{SECRET}'", "url", "https://ntfy.sh"),
        (f"option type 'mqtt'; option url 'https://h/{SECRET}'", "url", "mqtt://"),
        (f"option type 'webhook'; option url 'mqtt://h/{SECRET}'", "url", "https://"),
        ("option type 'webhook'; option url 'https://h/'; list event 'crash'", "event", "crashloop"),
        (
            f"option type 'webhook'; option url 'https://h/'; list header '{SECRET}'",
            "header",
            "Title: {title}",
        ),
        (f"option type 'webhook'; option url 'https://h/'; option template '{SECRET}'", "template", "JSON"),
        (
            f"option type 'webhook'; option url 'https://h/'; option format 'text'; option template '{SECRET} {{nam}}'",
            "template",
            "name",
        ),
        ("option type 'mqtt'; option url 'mqtt://h'; option topic 'a/#'", "topic", "topic"),
        ("option type 'mqtt'; option url 'mqtt://h'; option topic '{nothing}'", "topic", "event"),
        ("option type 'webhook'; option url 'https://h/'; option cooldown 'long'", "cooldown", "1m30s"),
    ],
)
def test_mistakes_say_where_and_what_to_write(options: str, option: str, expected: str) -> None:
    found = issue(options)
    assert (found.severity, found.option) == ("error", option)
    assert expected in found.expected
    assert decoded(options).desired.notices == ()
    assert decoded(options).desired.broken == {"notify:phone"}


def test_options_of_another_type_and_of_other_programs() -> None:
    found = issue("option type 'webhook'; option url 'https://h/'; option topic 'a'")
    assert (found.severity, found.option) == ("warning", "topic")
    found = issue(f"option type 'webhook'; option url 'https://h/'; option token '{SECRET}'")
    assert "list header" in found.expected


def test_a_section_without_a_name_has_no_lasting_identity() -> None:
    assert (
        issue("option type 'webhook'; option url 'https://h/'", head="config notify").expected
        == "a section name"
    )
