# SPDX-License-Identifier: GPL-2.0-or-later
"""The schemas themselves, and the words of the validator."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agent.model.container_table import TABLE, ChangeLevel
from agent.model.secrets import hidden_text
from agent.schema.validate import DAEMON_KINDS, KINDS, _is_right, properties, validate
from tests.support.policies import read_schema


@pytest.mark.parametrize("kind", [*KINDS, *DAEMON_KINDS])
def test_a_schema_is_valid_and_every_property_is_described(kind: str) -> None:
    Draft202012Validator.check_schema(read_schema(kind))
    for name, schema in read_schema(kind)["properties"].items():
        assert schema["title"], name
        assert schema["description"], name
        assert schema["examples"], name


@pytest.mark.parametrize("kind", [*KINDS, *DAEMON_KINDS])
def test_each_option_says_what_a_change_of_it_does(kind: str) -> None:
    effects = {name: schema.get("x-effect") for name, schema in read_schema(kind)["properties"].items()}
    known = ("nothing", "update", "run", "recreate", "replace", "fixed", "agent", "reload", "restart", "stop")
    assert [name for name, effect in effects.items() if effect not in known] == []


def test_what_a_change_of_a_container_does_is_what_the_table_says() -> None:
    for name, schema in read_schema("container")["properties"].items():
        levels = {row.level for row in TABLE if row.uci == name}
        if levels:
            assert schema["x-effect"] == ("recreate" if ChangeLevel.RECREATE in levels else "update"), name


@pytest.mark.parametrize("kind", [*KINDS, *DAEMON_KINDS])
def test_examples_and_defaults_follow_their_schema(kind: str) -> None:
    for schema in read_schema(kind)["properties"].values():
        validator = Draft202012Validator(dict(schema))
        samples: list[Any] = [*schema["examples"], *([schema["default"]] if schema.get("default") else [])]
        for sample in samples:
            assert validator.is_valid(sample), (schema["title"], sample)


def test_every_mistake_is_reported_at_its_place() -> None:
    mistakes = validate("container", {"memory": "lots", "cap_add": ("NET_ADMIN", "5"), "restart": ("a", "b")})
    assert [(m.option, m.index) for m in mistakes] == [
        ("cap_add", 1),
        ("image", None),
        ("memory", None),
        ("restart", None),
    ]
    assert all(m.expected for m in mistakes)


def test_a_single_option_counts_as_a_list_of_one() -> None:
    assert validate("container", {"image": "a", "port": "80"}) == ()


def test_an_unknown_option_is_a_warning_with_the_nearest_name() -> None:
    (mistake,) = validate("container", {"image": "a", "memroy": "64m"})
    assert (mistake.severity, mistake.expected) == ("warning", "perhaps `memory`")


def test_secret_values_are_not_shown() -> None:
    mistakes = validate("container", {"image": "a", "env": ("my secret=hunter2", "=hunter2")})
    assert len(mistakes) == 2
    assert "hunter2" not in repr(mistakes)
    assert "hunter2" not in repr(validate("auth", {"password": ("hunter2",), "serveraddress": "x"}))


KEYWORDS = {"type", "items", "enum", "pattern", "minLength"}
WORDS_ONLY = {"title", "description", "default", "examples", "writeOnly"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_to_write_instead_is_not_taken_for_a_secret(kind: str) -> None:
    """A status masks whole messages: `expected key=value` would become `key=***`."""
    for name, option in properties(kind).items():
        for part in (option, option.get("items", {})):
            hint = part.get("x-expected", "")
            assert (
                hidden_text(f"expected {hint} (/etc/config/x:1)") == f"expected {hint} (/etc/config/x:1)"
            ), name


def test_options_use_no_keyword_that_the_quick_check_does_not_know() -> None:
    for kind in (*KINDS, *DAEMON_KINDS):
        schema = read_schema(kind)
        top = {
            "$schema",
            "$id",
            "title",
            "description",
            "type",
            "required",
            "properties",
            "additionalProperties",
        }
        assert schema.keys() <= top
        for option in schema["properties"].values():
            for one in (option, option.get("items", {})):
                assert {key for key in one if not key.startswith("x-")} <= KEYWORDS | WORDS_ONLY, option


@settings(deadline=None, max_examples=30)
@given(st.data())
@pytest.mark.parametrize("kind", [*KINDS, *DAEMON_KINDS])
def test_the_quick_check_says_what_jsonschema_says(kind: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(properties(kind))))
    schema = properties(kind)[name]
    pattern = schema.get("items", schema).get("pattern", "")
    texts = st.text(max_size=6) | st.sampled_from(schema.get("items", schema).get("enum", [""]))
    texts |= st.from_regex(pattern) if pattern else st.sampled_from(["", "1", "a", "64m"])
    value = data.draw(texts | st.lists(texts, max_size=3))
    assert _is_right(schema, value) is Draft202012Validator(dict(schema)).is_valid(value)
