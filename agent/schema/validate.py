# SPDX-License-Identifier: GPL-2.0-or-later
"""Validates one raw section against its schema and says every mistake in words.

Before it comes `agent.uci.syntax`, after it `agent.uci.decode`, which checks what a schema cannot (sizes in
bytes, references). jsonschema costs some MiB, hence it is imported at the first use.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InternalError
from agent.model.dockerd.successors import successor_of
from agent.model.issues import Code, Severity
from agent.schema.docker_words import WORDS

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

KINDS = ("container", "network", "volume", "stack", "auth", "agent")
DAEMON_KINDS = ("firewall", "globals", "proxies", "tls")  # of package dockerd: about dockerd itself


_NOTHING = "nothing: "  # how a row of WORDS begins that has nothing to write instead

RawValue = str | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One mistake in one section; the caller knows the section's place."""

    severity: Severity
    code: Code
    option: str
    index: int | None = None
    wrong: str
    expected: str = ""


def read_schema(kind: str) -> dict[str, Any]:
    """The schema of a section type, from a checkout or from the installed package."""
    name = f"{kind}.schema.json"
    path = Path(__file__).parents[2] / "schemas" / name
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = resources.files("agent.schema").joinpath("files", name).read_text(encoding="utf-8")
    document = json.loads(text)
    if not isinstance(document, dict):
        raise InternalError(f"schema {name} is not an object")
    return document


@functools.cache
def properties(kind: str) -> Mapping[str, Mapping[str, Any]]:
    """Option name -> its schema."""
    found: Mapping[str, Mapping[str, Any]] = read_schema(kind)["properties"]
    return found


@functools.cache
def _validator(kind: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(read_schema(kind))


def is_list(kind: str, option: str) -> bool:
    """Whether the option is a list by its schema, whichever way it is written."""
    return properties(kind).get(option, {}).get("type") == "array"


def is_secret(kind: str, option: str) -> bool:
    """Whether the option's value may never be shown; unknown options count as secret."""
    return bool(properties(kind).get(option, {"writeOnly": True}).get("writeOnly", False))


def validate(kind: str, values: Mapping[str, RawValue]) -> tuple[Mistake, ...]:
    """All mistakes of a section, those of unknown options as warnings."""
    known = properties(kind)
    instance = {name: _instance(kind, name, value) for name, value in values.items() if name in known}
    mistakes = [_unknown(kind, name) for name in values if name not in known]
    for error in _validator(kind).iter_errors(instance):
        mistakes.extend(_mistakes(kind, error))
    return tuple(sorted(mistakes, key=lambda m: (m.option, -1 if m.index is None else m.index, m.wrong)))


def _instance(kind: str, name: str, value: RawValue) -> str | list[str]:
    if isinstance(value, str):
        return [value] if is_list(kind, name) else value
    return list(value)


def _unknown(kind: str, name: str) -> Mistake:
    import difflib  # only where there is a mistake

    successor = successor_of(name) if kind in DAEMON_KINDS else None
    meant = WORDS.get(kind, {}).get(name)
    if meant is not None:
        wrong, expected = f"is not an option of {kind} sections", meant
        if meant.startswith(_NOTHING):
            wrong, expected = f"{wrong}: {meant.removeprefix(_NOTHING)}", ""
        return Mistake(severity="warning", code="unknown-option", option=name, wrong=wrong, expected=expected)
    near = difflib.get_close_matches(name[:64], properties(kind), n=1)
    if successor is not None:
        expected = successor.text
    else:
        expected = f"perhaps `{near[0]}`" if near else "one of the documented options"
    return Mistake(
        severity="warning",
        code="unknown-option",
        option=name,
        wrong=f"unknown option of a {kind} section",
        expected=expected,
    )


_LIKE_YAML = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)\s*:\s")


def _mistakes(kind: str, error: ValidationError) -> Iterator[Mistake]:
    if error.validator == "required":
        values = error.instance if isinstance(error.instance, dict) else {}
        missing = (name for name in read_schema(kind)["required"] if name not in values)
        # iter_errors reports each missing option apart, with its name in the message
        for name in missing:
            if error.message.startswith(repr(name)):
                yield Mistake(
                    severity="error",
                    code="missing-option",
                    option=name,
                    wrong="is missing",
                    expected=_wish(error, kind, name),
                )
        return
    path = list(error.absolute_path)
    option = str(path[0]) if path else ""
    index = path[1] if len(path) > 1 and isinstance(path[1], int) else None
    yield Mistake(
        severity="error",
        code="wrong-type" if error.validator == "type" else "invalid-value",
        option=option,
        index=index,
        wrong=_wrong(kind, option, error),
        expected=_wish(error, kind, option),
    )


def _wrong(kind: str, option: str, error: ValidationError) -> str:
    if error.validator == "type":
        return "is a list" if isinstance(error.instance, list) else "is of the wrong type"
    if error.instance == "":
        return "is empty"
    if is_secret(kind, option):
        # a name may be shown, a value may not
        like_yaml = _LIKE_YAML.match(error.instance) if isinstance(error.instance, str) else None
        hint = f": write `{like_yaml[1]}=...`" if like_yaml else ""
        return f"the value does not have the right form{hint}"
    return f"{error.instance!r} is not valid here"


def _wish(error: ValidationError, kind: str, option: str) -> str:
    if error.validator == "type":
        return "a single `option`"
    schema = properties(kind).get(option, {})
    schema = schema.get("items", schema)
    if "x-expected" in schema:
        return str(schema["x-expected"])
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    return "a value"
