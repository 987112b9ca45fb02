# SPDX-License-Identifier: GPL-2.0-or-later
"""`docs/openapi.json` from the route table, `docs/engine-calls.md` from the table of engine calls.

`python -m tests.support.openapi` writes both, and a test compares them.

Paths, methods, rights and all texts come from the rules. `openapi_schemas` has the schemas of bodies and answers,
because handlers check their input in code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.api.app import make_rules
from agent.api.engine_calls import BUILDKIT_CALLS, ENGINE_CALLS
from agent.api.routes.engine import VERSION
from agent.api.rules import WEBSOCKET, Need, Rule
from agent.engine.stream import DockerStream
from tests.support.controller import QuietAgent
from tests.support.openapi_schemas import PATH_PARAMETERS, SCHEMAS, SHAPES

FILE = Path(__file__).parents[2] / "docs" / "openapi.json"
CALLS_FILE = FILE.with_name("engine-calls.md")
_PARAMETER = re.compile(r"\{([a-z_]+)(:[a-z_]+)?\}")
_ERROR = {"$ref": "#/components/responses/Error"}
_ERROR_OF_EITHER = {"$ref": "#/components/responses/ErrorOfEither"}
_OF_THE_ENGINE = (
    "The engine's own answer: 500 for some requests that it cannot read and for registries that it does not reach, 503 where"
    " it is not in a swarm. 502 and 503 of ours: no engine, or one that did not answer"
)


def all_rules() -> list[Rule]:
    """The route table of an agent whose engine is never called."""
    return make_rules(QuietAgent(), DockerStream("unix:///nothing"))


def document(rules: Sequence[Rule]) -> dict[str, Any]:
    """The description, in a stable order."""
    paths: dict[str, dict[str, Any]] = {}
    for rule in sorted(rules, key=lambda rule: (rule.path, rule.method)):
        paths.setdefault(path_of(rule), {})[method_of(rule)] = _operation(rule)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ucidockd",
            "version": "1",
            "description": "The controller of the agent, on the control socket and, where `listen` says so, on TCP. "
            "`x-need` is the right that a route takes, `x-ubus` the ubus object and method that it stands for. "
            "On TCP the Authorization header carries a LuCI session. Below /docker/ a version of the engine's API may come "
            "first: /docker/v1.41/containers/json; without one it is the engine's newest.",
            "license": {"name": "GPL-2.0-or-later", "identifier": "GPL-2.0-or-later"},
        },
        "security": [{"session": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"session": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Error": {
                    "description": "What is wrong, and whose fault: 4xx the request's, 5xx the engine's or ours",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                },
                "ErrorOfEither": {
                    "description": "Ours, or the engine's own, which has `message` alone, or for a raw stream is text",
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/ErrorOfEither"}},
                        "text/plain": {"schema": {"type": "string"}},
                    },
                },
            },
            "schemas": SCHEMAS,
        },
    }


def path_of(rule: Rule) -> str:
    """The path in OpenAPI's form: without converters, and without the optional version."""
    return _PARAMETER.sub(r"{\1}", rule.path.replace(VERSION, ""))


def method_of(rule: Rule) -> str:
    """The key of the operation. A WebSocket begins as a GET, but is not a GET route."""
    return "get" if rule.method == WEBSOCKET else rule.method.lower()


def _operation(rule: Rule) -> dict[str, Any]:
    shape = SHAPES.get(f"{rule.method} {path_of(rule)}", {})
    parameters = [_path_parameter(found[1]) for found in _PARAMETER.finditer(path_of(rule))]
    parameters += [_query_parameter(name, text) for name, text in rule.query.items()]
    operation: dict[str, Any] = {"summary": rule.summary, "x-need": rule.grant.need.value}
    if rule.grant.object:
        operation["x-ubus"] = f"{rule.grant.object} {rule.grant.method}"
    if rule.grant.need is Need.PUBLIC:
        operation["security"] = []
    if parameters:
        operation["parameters"] = parameters
    if rule.body != "none":
        operation["requestBody"] = _body(rule, shape)
    if rule.method == WEBSOCKET:
        operation["x-websocket"] = True
    operation["responses"] = _responses(rule, shape)
    return operation


def _path_parameter(name: str) -> dict[str, Any]:
    text = PATH_PARAMETERS.get(name, name)
    return {"name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string"}}


def _query_parameter(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}


def _body(rule: Rule, shape: dict[str, Any]) -> dict[str, Any]:
    if rule.body == "json":
        schema = shape.get("body", {"type": "object"})
        return {"content": {"application/json": {"schema": schema}}}
    return {"required": True, "content": {"application/octet-stream": {}}}


def _responses(rule: Rule, shape: dict[str, Any]) -> dict[str, Any]:
    if rule.method == WEBSOCKET:
        return {"101": {"description": "The WebSocket is open"}, "default": _ERROR}
    answer: dict[str, Any] = {"description": rule.answer or rule.summary}
    if content := shape.get("content"):
        answer["content"] = content
    through = path_of(rule).startswith("/docker/")
    # the engine returns 201 or 204 for some calls
    responses = {"2XX" if through else str(rule.status): answer}
    if through:
        responses["5XX"] = {"description": _OF_THE_ENGINE}
    if rule.grant.need is not Need.PUBLIC:
        responses["default"] = _ERROR_OF_EITHER if through else _ERROR
    return responses


def text_of(rules: Sequence[Rule]) -> str:
    """The text of the file, with one operation per line, so that a change shows as one line."""
    whole = document(rules)
    lines = [
        f" {json.dumps(path)}: {{\n"
        + ",\n".join(f"  {json.dumps(m)}: {_compact(operation)}" for m, operation in methods.items())
        + "\n }"
        for path, methods in whole.pop("paths").items()
    ]
    head = json.dumps(whole, indent=1, ensure_ascii=False)
    return head.removesuffix("\n}") + ',\n "paths": {\n' + ",\n".join(lines) + "\n }\n}\n"


_CALLS_HEAD = """# Calls of the Engine API
Clients may make these calls below `/docker/` ([browsers.md](browsers.md)) and, where a ubus method is named, on ubus
([ubus.md](ubus.md)). Every other call is refused. `make openapi` writes this file from `agent/api/engine_calls.py`.

*Right*: `read` or `write`, and the ubus object and method that the session must be allowed to call. *Masked*: readers get
the answer without secrets. *Manual*: a managed container is held as the call leaves it (a `kill` only with a signal that
can stop it); see [browsers.md](browsers.md).

| call | what it does | right | on ubus | |
|---|---|---|---|---|
"""


def calls_text() -> str:
    """The document of all engine calls."""
    rows = []
    for call in sorted(ENGINE_CALLS, key=lambda call: (call.path, call.verb)):
        notes = ", ".join(name for name, is_so in (("masked", call.masked), ("manual", call.manual)) if is_so)
        bus = "" if call.args is None else f"`{call.method}({', '.join(call.args.split())})`"
        right = f"{call.need}: `{call.object}` `{call.method}`"
        rows.append(f"| `{call.verb} {call.path}` | {call.summary} | {right} | {bus} | {notes} |\n")
    refused = ", ".join(f"`{call.verb} {call.path}`" for call in BUILDKIT_CALLS)
    return f"{_CALLS_HEAD}{''.join(rows)}\n{refused} (BuildKit) get 501 with the way to build without it.\n"


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    FILE.write_text(text_of(all_rules()), encoding="utf-8")
    CALLS_FILE.write_text(calls_text(), encoding="utf-8")
