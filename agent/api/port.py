# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports: what the controller asks of the running agent, and of whoever knows the sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agent.model.dockerd.settings import Wish
from agent.model.given import Given
from agent.model.resources import RegistryAuth
from agent.status.board import StatusBoard
from agent.status.metrics import PassCounters

if TYPE_CHECKING:
    from agent.convert.requests import ImportRequest


class AgentPort(Protocol):
    """`plan` and `reconcile` raise EngineError when the engine is away."""

    board: StatusBoard
    passes: PassCounters

    async def plan(self, given: Given | None = None) -> dict[str, Any]:
        """What a pass would do now (`operations`), and all else that is not as declared (`pending`).

        `given`: were that committed; raises ConfigError for a package that is not ours.
        """
        ...

    async def reconcile(self) -> dict[str, Any]:
        """A full pass; returns when it and what was under way are ended."""
        ...

    async def validate(self, texts: Mapping[str, str]) -> list[dict[str, Any]]:
        """The mistakes of the configuration, were these the files of the packages named. Writes nothing."""

    def api_version(self) -> str:
        """The API version that UCI wants LuCI to speak with the engine (`v1.47`), "" for the newest."""

    def auths(self) -> Sequence[RegistryAuth]:
        """The registry logins that UCI has now."""

    async def manual(self, container: str, action: str) -> None:
        """A manual action (stop, remove, rename ...) on a container, name or id: call it before the action.

        A managed container is held as the action leaves it until its section changes or a reconcile is asked for.
        """

    async def manual_failed(self, container: str) -> None:
        """The engine refused the action that `manual` announced."""

    async def adopt(
        self, container: str, *, section: str, commit: bool, show_secrets: bool
    ) -> dict[str, Any]:
        """A container that is not ours as UCI sections: text, notes, whether they were committed.

        Raises ConfigError, ConflictError, EngineError (404 for no such container).
        """
        ...

    async def import_text(self, request: ImportRequest) -> dict[str, Any]:
        """A docker run line or a compose file as UCI sections with a report. Raises ConfigError, ConflictError."""
        ...

    def export_text(self, form: str, names: Sequence[str]) -> str:
        """Container sections as docker run lines or a compose file. Raises ConfigError for an unknown name."""

    async def diff(self, name: str) -> dict[str, Any]:
        """One container section against what the engine shows. Raises ConfigError for no such section."""
        ...

    async def describe(self, name: str) -> dict[str, Any]:
        """Everything about one container section. Raises ConfigError for no such section."""
        ...

    async def tls_client(self, name: str, *, days: int) -> dict[str, Any]:
        """A new client's bundle for dockerd's TLS: `name`, `files` (PEM, a private key among it), `expires` (unix
        seconds), `server_names`. Raises ConfigError, ClockNotSetError, CertificateError.
        """
        ...

    async def dockerd(self, wish: Wish) -> None:
        """Has dockerd started, stopped or restarted soon. Raises ConflictError, which says why not."""


class Sessions(Protocol):
    """Who knows sessions: rpcd on OpenWrt, a token file elsewhere."""

    async def allowed(self, session: str, object: str, method: str) -> bool:  # noqa: A002 - ubus's word
        """Whether that session may call that method of that ubus object; False for a session that is not known.

        May be true for 5 s after the right has ended. Raises BusError when nobody answers.
        """
