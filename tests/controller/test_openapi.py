# SPDX-License-Identifier: GPL-2.0-or-later
"""`docs/openapi.json` describes just the routes that there are, with their rights."""

from __future__ import annotations

import json

import pytest

from agent.controller.rules import WEBSOCKET, Rule
from tests.support.openapi import CALLS_FILE, FILE, all_rules, calls_text, method_of, path_of, text_of
from tests.support.openapi_schemas import SHAPES

RULES = all_rules()
PUBLISHED = json.loads(FILE.read_text(encoding="utf-8"))


def test_the_file_is_what_the_route_table_says() -> None:
    told = {(path, method) for path, methods in PUBLISHED["paths"].items() for method in methods}
    assert told == {(path_of(rule), method_of(rule)) for rule in RULES}
    assert FILE.read_text(encoding="utf-8") == text_of(RULES), "run `make openapi`"


def test_the_list_of_engine_calls_is_what_the_table_says() -> None:
    assert CALLS_FILE.read_text(encoding="utf-8") == calls_text(), "run `make openapi`"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.method} {rule.path}")
def test_each_operation_says_what_it_does_needs_takes_and_answers(rule: Rule) -> None:
    operation = PUBLISHED["paths"][path_of(rule)][method_of(rule)]
    assert operation["summary"] and not operation["summary"].endswith(".")
    assert operation["x-need"] == rule.grant.need
    assert operation.get("x-ubus", "") == f"{rule.grant.object} {rule.grant.method}".strip()
    assert ("requestBody" in operation) == (rule.body != "none")
    assert "default" in operation["responses"] or rule.grant.need == "public"
    others = operation["responses"].keys() - {"default"}
    assert ("5XX" in others) is (path_of(rule).startswith("/docker/") and rule.method != WEBSOCKET)
    assert len(others - {"5XX"}) == 1


def test_no_two_routes_are_the_same_operation() -> None:
    keys = [(path_of(rule), method_of(rule)) for rule in RULES]
    assert len(keys) == len(set(keys))


def test_no_schemas_are_left_of_routes_that_are_gone() -> None:
    assert SHAPES.keys() <= {f"{rule.method} {path_of(rule)}" for rule in RULES}


def test_each_reference_leads_somewhere() -> None:
    text = json.dumps(PUBLISHED)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names and names <= PUBLISHED["components"]["schemas"].keys()
