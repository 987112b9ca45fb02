# SPDX-License-Identifier: GPL-2.0-or-later
"""The application: every route of the table, and what becomes of errors."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route, WebSocketRoute

from agent.clients.docker_stream import DockerStream, SourceError
from agent.controller.port import AgentPort
from agent.controller.problems import on_defect, on_error, on_http_error
from agent.controller.routes_adoption import AdoptionRoutes
from agent.controller.routes_files import FileRoutes
from agent.controller.routes_status import StatusRoutes
from agent.controller.routes_streams import StreamRoutes
from agent.controller.rules import WEBSOCKET, Rule
from agent.errors import UcidockdError


def make_rules(agent: AgentPort, engine: DockerStream) -> list[Rule]:
    """The route table."""
    return [
        *StatusRoutes(agent).rules(),
        *StreamRoutes(engine, agent.board).rules(),
        *FileRoutes(engine).rules(),
        *AdoptionRoutes(agent).rules(),
    ]


def make_app(agent: AgentPort, engine: DockerStream) -> Starlette:
    """The application over a running agent."""
    return Starlette(
        routes=make_routes(make_rules(agent, engine)),
        exception_handlers={
            UcidockdError: on_error,
            SourceError: on_error,
            HTTPException: on_http_error,
            Exception: on_defect,
        },
    )


def make_routes(rules: Sequence[Rule]) -> list[BaseRoute]:
    """Starlette's routes. HEAD is nobody's but who asks for it: Starlette would add it to every GET."""
    routes: list[BaseRoute] = []
    for rule in rules:
        if rule.method == WEBSOCKET:
            routes.append(WebSocketRoute(rule.path, rule.handler))
            continue
        route = Route(rule.path, rule.handler, methods=[rule.method])
        route.methods = {rule.method}
        routes.append(route)
    return routes
