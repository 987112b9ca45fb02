# SPDX-License-Identifier: GPL-2.0-or-later
"""The forms' checks (run by node) against what the agent says of the same values: both say yes or no alike.

Asked are all options of all schemas, each with its schema's examples, what `values.json` has for it, and odd texts.
"""

from __future__ import annotations

import functools
import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.model import quantities
from agent.model.quantities import QuantityError
from agent.schema.validate import DAEMON_KINDS, KINDS, properties
from agent.uci.decode import decode
from agent.uci.syntax import parse, quote

HERE = Path(__file__).parent
VALUES: dict[str, dict[str, list[str]]] = json.loads((HERE / "values.json").read_text())

if shutil.which("node") is None:
    pytest.skip("node is not installed", allow_module_level=True)

# what the value stands beside
BESIDE = {
    "container": {"image": "busybox", "memory": "1g", "network": "lan"},
    "network": {"driver": "bridge"},
    "auth": {"token": "t"},
    "agent": {"cert": "/c", "key": "/k"},
    "notify": {"type": "webhook", "url": "https://h/"},
    "tls": {"mode": "auto"},
}
OTHERS = "config network 'lan'\n"
# mistakes that no field can see alone: they are about other options and sections
ACROSS = re.compile(
    r"is not in any subnet|^unknown (network|container section)|goes? with |cannot be combined with"
    r"|is (above|less than) `memory`|has no (mode|parent)"
    r"|is not a mode of|is not inside the bridge|depends on itself|renewed again and again|certificates are the agent's"
    r"|cannot be read|cannot have an address|the first network entry|there is no pool of IPv4|does not give JSON"
    r"|: no container could be created|is not for type|^no container section is named|compress needs logs that are rotated"
    r"|option of the log driver"
)


def values_of(kind: str, option: str) -> list[str]:
    schema = properties(kind)[option]
    examples = [
        one for group in schema.get("examples", ()) for one in (group if isinstance(group, list) else [group])
    ]
    every = [*VALUES["*"]["*"], *VALUES.get(kind, {}).get(option, ()), *examples]
    return [text for text in dict.fromkeys(every) if text]  # an empty field is an option that is not there


def is_refused(kind: str, option: str, text: str) -> bool:
    """Whether the agent finds a mistake in this value."""
    beside = {name: value for name, value in BESIDE.get(kind, {}).items() if name != option}
    if option == "network_mode":
        beside.pop("network")
    lines = [f"\toption {name} {quote(value)}\n" for name, value in beside.items()]
    package = "dockerd" if kind in DAEMON_KINDS else "containers"
    name = kind if kind in DAEMON_KINDS else "tried"
    written = f"config {kind} '{name}'\n{''.join(lines)}\tlist {option} {quote(text)}\n"
    if properties(kind)[option].get("type") != "array":
        written = written.replace("\tlist ", "\toption ")
    if package == "containers" and kind != "network":
        written += OTHERS
    found = decode({package: parse(written, package=package)}, paths={}).issues
    return any(
        one.severity == "error"
        and one.section == name
        and one.option == option
        and not ACROSS.search(one.message)
        for one in found
    )


@functools.cache
def asked() -> list[tuple[str, str, str]]:
    return [
        (kind, option, text)
        for kind in (*KINDS, *DAEMON_KINDS)
        for option, schema in properties(kind).items()
        if "enum" not in schema
        for text in values_of(kind, option)
    ]


def ask(questions: list[tuple[str, str, str]]) -> list[Any]:
    node = subprocess.run(
        ["node", str(HERE / "checks_answer.mjs")],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=True,
    )
    answers: list[Any] = json.loads(node.stdout)
    return answers


def test_forms_and_agent_agree_on_every_value_of_every_option() -> None:
    differing = [
        (*question, answer)
        for question, answer in zip(asked(), ask(asked()), strict=True)
        if (answer != "") is not is_refused(*question)
    ]
    assert differing == []


def test_values_are_listed_for_options_that_there_are() -> None:
    named = {(kind, option) for kind, options in VALUES.items() if kind != "*" for option in options}
    assert named - {(kind, option) for kind, option, _ in asked()} == set()


def _words(text: str) -> list[str] | None:
    try:
        return list(quantities.split_words(text))
    except QuantityError:
        return None


def test_forms_and_agent_split_every_command_line_alike() -> None:
    source = random.Random(7)
    lines = ["".join(source.choices("ab \"'\\\n$", k=source.randrange(14))) for _ in range(2000)]
    assert ask([("", "words", line) for line in lines]) == [_words(line) for line in lines]
