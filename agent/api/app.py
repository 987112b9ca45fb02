# SPDX-License-Identifier: GPL-2.0-or-later
"""The Starlette application: all routes, and the handlers that turn errors into answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from agent.api.access.access import Access, NoSessions, Subnets
from agent.api.access.guard import Guard
from agent.api.http.routing import make_routes, on_defect, on_error, on_http_error, run_found
from agent.api.jobs.jobs import Jobs
from agent.api.jobs.transfers import Transfers
from agent.api.port import AgentPort
from agent.api.routes.agent import AdoptionRoutes, DaemonRoutes, MetricsRoutes, StatusRoutes, TicketRoutes
from agent.api.routes.consoles import ConsoleRoutes
from agent.api.routes.engine import EngineRoutes
from agent.api.routes.files import BackupRoutes, FileRoutes, TransferRoutes, VolumeRoutes
from agent.api.routes.jobs import JobRoutes, UpdateRoutes
from agent.api.routes.streams import StreamRoutes
from agent.api.rules import Rule
from agent.api.streams.consoles import Consoles
from agent.data.parts import Data
from agent.engine.stream import DockerStream, SourceError
from agent.errors import UcidockdError


def make_rules(
    agent: AgentPort,
    engine: DockerStream,
    access: Access | None = None,
    consoles: Consoles | None = None,
    *,
    jobs: Jobs | None = None,
    data: Data | None = None,
) -> list[Rule]:
    """The route table. Pass `jobs` and `data` if ubus or the passes share them."""
    jobs = jobs or Jobs(engine)
    nowhere = Path("/proc/nowhere")  # in a list of routes nothing is written; no folder can be made there
    data = data or Data(engine, agent, agent.board, instance=lambda: "", run_dir=nowhere, state_dir=nowhere)
    transfers = Transfers(engine, jobs)
    consoles = consoles or Consoles(engine)
    through = EngineRoutes(agent, engine, consoles)
    return [
        *StatusRoutes(agent).rules(),
        *StreamRoutes(engine, agent.board).rules(),
        *FileRoutes(engine).rules(),
        *JobRoutes(jobs, agent.auths).rules(),
        *VolumeRoutes(data).rules(),
        *BackupRoutes(data).rules(),
        *TransferRoutes(transfers, engine, agent.auths, agent.board, data).rules(),
        *MetricsRoutes(agent, jobs, transfers, data.backups).rules(),
        *AdoptionRoutes(agent).rules(),
        *UpdateRoutes(agent).rules(),
        *DaemonRoutes(agent, jobs).rules(),
        *ConsoleRoutes(consoles).rules(),
        *TicketRoutes(access or control_only(engine)).rules(),
        *through.rules(),  # last because there are many: a match before them is found sooner
        *through.refusals(),
    ]


def make_app(
    agent: AgentPort,
    engine: DockerStream,
    access: Access | None = None,
    consoles: Consoles | None = None,
    *,
    jobs: Jobs | None = None,
    data: Data | None = None,
) -> Starlette:
    """The application over a running agent. Without `access`, it serves the control socket only.

    The caller who passes `consoles`, `jobs` and `data` also closes them.
    """
    access = access or control_only(engine)
    return assemble(make_rules(agent, engine, access, consoles, jobs=jobs, data=data), access)


def control_only(engine: DockerStream) -> Access:
    """Access for root on the control socket only."""
    return Access(NoSessions(), Subnets(engine))


def assemble(rules: Sequence[Rule], access: Access) -> Starlette:
    """An application that serves these rules, each behind the access check."""
    app = Starlette(
        routes=make_routes(rules),
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={
            UcidockdError: on_error,
            SourceError: on_error,
            HTTPException: on_http_error,
            Exception: on_defect,
        },
    )
    app.router.redirect_slashes = False  # one spelling per path, and no Location with the client's Host
    run_found(app.router)
    return app
