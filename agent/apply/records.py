# SPDX-License-Identifier: GPL-2.0-or-later
"""Port: where it is kept which objects are ours. `agent.files.state` implements it."""

from __future__ import annotations

from typing import Any, Protocol

from agent.model.observed import Record
from agent.plan.engines import Claims, Tags


class Records(Protocol):
    """Every method that changes something has written it to disk when it returns; StorageError: nothing is changed.

    What is not `lasting` survives the agent, and may be lost with the power: it is for what `recover` finds out again,
    as the id of an object that carries the record's nonce.
    """

    instance: str

    def records(self) -> tuple[Record, ...]: ...

    def everywhere(self) -> tuple[Record, ...]: ...

    def stand_on(self, tags: Tags, claims: Claims, *, keep: bool) -> None: ...

    def get(self, nonce: str) -> Record | None: ...

    def put(self, *records: Record) -> None: ...

    def change(self, nonce: str, *, lasting: bool = True, **changes: Any) -> Record: ...

    def drop(self, nonce: str, *, lasting: bool = True) -> None: ...

    def fold(self) -> None: ...
