# SPDX-License-Identifier: GPL-2.0-or-later
"""What UCI asks dockerd for on this machine: with the certificates and the addresses that there are."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from agent.dockerd.check import unavailable_hosts
from agent.dockerd.files import DaemonFiles, material_of
from agent.dockerd.runner import Runner, version_of
from agent.dockerd.server_identity import ServerIdentities
from agent.errors import DaemonError
from agent.model.dockerd.settings import DaemonSettings, Document, Target
from agent.model.interfaces import Route
from agent.plan.daemon import GRAPH_DRIVERS, Rendered, render
from agent.plan.router.bridge_subnets import SUBNET_KEYS, fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    """Renders daemon.json; makes certificates where `identities` can. `routes`: of this machine."""

    files: DaemonFiles
    identities: ServerIdentities
    routes: Callable[[], tuple[Route, ...]]

    def foreseeing(self) -> Renderer:
        """The same for a look ahead: it makes no certificates."""
        return replace(self, identities=replace(self.identities, foresees=True))

    def render(
        self,
        settings: DaemonSettings,
        runner: Runner,
        *,
        running: Target | None = None,
        probe: bool = False,
        bridges: Collection[str] = (),
        refused: Document | None = None,
    ) -> tuple[Rendered, DaemonError | None]:
        """The file, and what could not be had of it. Raises DaemonError.

        `probe`: whether hosts that `running` has not opened are tried; nobody must be listening there yet. `bridges`:
        devices of the networks that sections declare. `refused`: what dockerd is known not to take, and why.
        """
        good = self.files.last_good()
        identity, trouble = self.identities.get(settings.tls, good.document if good is not None else {})
        opened = running.document.get("hosts") if running is not None else None
        new = [host for host in settings.hosts if not isinstance(opened, list) or host.text not in opened]
        unavailable = unavailable_hosts(new) if probe else {}
        fitted = fit(settings, self.routes() if _has_subnets(settings) else (), bridges)
        kept = {
            **(good.document if good is not None else {}),
            **(running.document if running is not None else {}),
        }
        root = fitted.settings.values.get("data-root") or kept.get("data-root")
        rendered = render(
            fitted.settings,
            version=version_of(runner.program),
            socket=runner.socket,
            identity=identity,
            unavailable=unavailable,
            refused={**fitted.refused, **(refused or {})},
            kept=kept,
            prior=prior_drivers(str(root)) if root else (),
        )
        rendered = replace(
            rendered,
            left_out=(*rendered.left_out, *fitted.left_out),
            warnings=(*rendered.warnings, *fitted.warnings),
        )
        if unavailable and trouble is None:
            text = "; ".join(f"{host} is not opened: {why}" for host, why in sorted(unavailable.items()))
            trouble = DaemonError(text, reason="HostUnavailable")
        return rendered, trouble


def _has_subnets(settings: DaemonSettings) -> bool:
    return any(settings.values.get(key) for key in SUBNET_KEYS)


def prior_drivers(root: str) -> tuple[str, ...]:
    """Storage drivers of dockerd itself that have left data in this data_root."""
    return tuple(sorted(name for name in GRAPH_DRIVERS if _has_entries(Path(root, name))))


def _has_entries(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def target_of(document: Document, runner: Runner) -> Target:
    """What dockerd follows when it is started with that file, as far as it can be compared."""
    return Target(document=document, material=material_of(document), arguments=runner.arguments)
