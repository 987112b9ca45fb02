# SPDX-License-Identifier: GPL-2.0-or-later
"""The forms' checks (checks.js, run by node) against the agent's own parsers: both say yes or no to the same values."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.model import entries, quantities
from agent.model.quantities import QuantityError

HERE = Path(__file__).parent

if shutil.which("node") is None:
    pytest.skip("node is not installed", allow_module_level=True)


def _address4(text: str) -> object:
    return entries.parse_address(text, version=4)


def _address6(text: str) -> object:
    return entries.parse_address(text, version=6)


PARSERS: dict[str, Callable[[str], object]] = {
    "memory": quantities.parse_size,
    "memory_swap": quantities.parse_swap,
    "health_interval": quantities.parse_duration,
    "gate": quantities.parse_seconds,
    "cpus": quantities.parse_cpus,
    "dns": entries.parse_address,
    "ip": _address4,
    "ip6": _address6,
    "port": entries.parse_ports,
    "volume": entries.parse_volume,
    "tmpfs": entries.parse_tmpfs,
    "device": entries.parse_device,
    "network": entries.parse_endpoint,
    "ulimit": entries.parse_ulimit,
    "restart": entries.parse_restart,
    "depends_on": entries.parse_dependency,
    "wait_for": entries.parse_wait,
    "extra_host": entries.parse_extra_host,
}


def _verdict(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except QuantityError:
        return False
    return True


def _ask(asked: list[tuple[str, str, str]]) -> list[Any]:
    node = subprocess.run(
        ["node", str(HERE / "checks_answer.mjs")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    answers: list[Any] = json.loads(node.stdout)
    return answers


def test_forms_and_agent_agree_on_every_value() -> None:
    values: dict[str, list[str]] = json.loads((HERE / "values.json").read_text())
    asked = [("container", option, text) for option, texts in values.items() for text in texts]
    assert values.keys() == PARSERS.keys()
    differing = [
        (option, text, answer)
        for (_, option, text), answer in zip(asked, _ask(asked), strict=True)
        if (answer == "") is not _verdict(PARSERS[option], text)
    ]
    assert differing == []


def _words(text: str) -> list[str] | None:
    try:
        return list(quantities.split_words(text))
    except QuantityError:
        return None


def test_forms_and_agent_split_every_command_line_alike() -> None:
    source = random.Random(7)
    lines = ["".join(source.choices("ab \"'\\\n$", k=source.randrange(14))) for _ in range(2000)]
    assert _ask([("", "words", line) for line in lines]) == [_words(line) for line in lines]
