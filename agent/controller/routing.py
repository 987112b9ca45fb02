# SPDX-License-Identifier: GPL-2.0-or-later
"""Starlette's routes made from rules. Each keeps its rule, so that what is checked is what runs."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match, Route, WebSocketRoute
from starlette.types import Scope

from agent.controller.rules import WEBSOCKET, Rule


class RuledRoute(Route):
    """HEAD is nobody's but who asks for it: Starlette would add it to every GET."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule.path, rule.handler, methods=[rule.method])
        self.methods = {rule.method}
        self.rule = rule


class RuledSocket(WebSocketRoute):
    """A WebSocket."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule.path, rule.handler)
        self.rule = rule


def make_routes(rules: Sequence[Rule]) -> list[BaseRoute]:
    """A route for each rule."""
    return [RuledSocket(rule) if rule.method == WEBSOCKET else RuledRoute(rule) for rule in rules]


def matching_rule(scope: Scope) -> Rule | None:
    """The rule of the route that Starlette will run for that request; None when there is no such route."""
    for route in scope["app"].routes:
        if isinstance(route, RuledRoute | RuledSocket) and route.matches(scope)[0] is Match.FULL:
            return route.rule
    return None


def matching_socket(scope: Scope, path: str) -> Rule | None:
    """The rule of the WebSocket at `path`, in the application of `scope`."""
    return matching_rule({"type": "websocket", "path": path, "root_path": "", "app": scope["app"]})
