# SPDX-License-Identifier: GPL-2.0-or-later
"""What UCI asks dockerd for on this machine: with the certificates and the addresses that there are."""

from __future__ import annotations

from dataclasses import dataclass

from agent.clients.daemon_check import unavailable_hosts
from agent.clients.daemon_files import DaemonFiles, material_of
from agent.errors import DaemonError
from agent.model.daemon import DaemonSettings, Document, Target
from agent.plan.daemon import Rendered, render
from agent.runtime.daemon_identity import ServerIdentities
from agent.runtime.daemon_runner import Runner, version_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    """Renders daemon.json; makes certificates where `identities` can."""

    files: DaemonFiles
    identities: ServerIdentities

    def render(
        self, settings: DaemonSettings, runner: Runner, *, running: Target | None = None, probe: bool = False
    ) -> tuple[Rendered, DaemonError | None]:
        """The file, and what could not be had of it. Raises DaemonError.

        `probe`: whether hosts that `running` has not opened are tried; nobody must be listening there yet.
        """
        good = self.files.last_good()
        identity, trouble = self.identities.get(settings.tls, good.document if good is not None else {})
        opened = running.document.get("hosts") if running is not None else None
        new = [host for host in settings.hosts if not isinstance(opened, list) or host.text not in opened]
        unavailable = unavailable_hosts(new) if probe else {}
        rendered = render(
            settings,
            version=version_of(runner.program),
            socket=runner.socket,
            identity=identity,
            unavailable=unavailable,
        )
        if unavailable and trouble is None:
            text = "; ".join(f"{host} is not opened: {why}" for host, why in sorted(unavailable.items()))
            trouble = DaemonError(text, reason="HostUnavailable")
        return rendered, trouble


def target_of(document: Document, runner: Runner) -> Target:
    """What dockerd follows when it is started with that file, as far as it can be compared."""
    return Target(document=document, material=material_of(document), arguments=runner.arguments)
