# SPDX-License-Identifier: GPL-2.0-or-later
"""The application: every route of the table, and what becomes of errors."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route, WebSocketRoute

from agent.clients.docker_stream import DockerStream, SourceError
from agent.controller.jobs import Jobs
from agent.controller.port import AgentPort
from agent.controller.problems import on_defect, on_error, on_http_error
from agent.controller.routes_files import FileRoutes
from agent.controller.routes_jobs import JobRoutes
from agent.controller.routes_metrics import MetricsRoutes
from agent.controller.routes_status import StatusRoutes
from agent.controller.routes_streams import StreamRoutes
from agent.controller.routes_transfers import TransferRoutes
from agent.controller.rules import WEBSOCKET, Rule
from agent.controller.transfers import Transfers
from agent.errors import UcidockdError


def make_rules(agent: AgentPort, engine: DockerStream, jobs: Jobs | None = None) -> list[Rule]:
    """The route table. `jobs` is given where another door (ubus) shows them too."""
    jobs = jobs or Jobs(engine)
    transfers = Transfers(engine, jobs)
    return [
        *StatusRoutes(agent).rules(),
        *StreamRoutes(engine, agent.board).rules(),
        *FileRoutes(engine).rules(),
        *JobRoutes(jobs, agent.auths).rules(),
        *TransferRoutes(transfers, engine, agent.auths).rules(),
        *MetricsRoutes(agent, jobs, transfers).rules(),
    ]


def make_app(agent: AgentPort, engine: DockerStream, jobs: Jobs | None = None) -> Starlette:
    """The application over a running agent."""
    return Starlette(
        routes=make_routes(make_rules(agent, engine, jobs)),
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
