# SPDX-License-Identifier: GPL-2.0-or-later
"""What a state file says, whether it was written whole or changes follow."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.apply.ports import Engine
from agent.plan.records import tags_of, visible
from agent.wire.record_lines import read


def state_of(folder: Path) -> dict[str, Any]:
    """As version 0.1.0 wrote it; `json.dumps` of it is a state file again."""
    found = read((folder / "state.json").read_bytes())
    return {
        "version": 1,
        "instance": found.instance,
        "records": [asdict(record) for record in found.records.values()],
    }


def sections_of(folder: Path) -> dict[str, str]:
    """The section of each container by its id, of all engines."""
    records = read((folder / "state.json").read_bytes()).records.values()
    return {r.object_id: r.section for r in records if r.kind == "container" and r.object_id}


def open_records(folder: Path, engine: Engine) -> list[str]:
    """The records of works that are not finished, on the engine that answers."""
    records = list(read((folder / "state.json").read_bytes()).records.values())
    here = visible(records, tags_of(records, engine.identity(fresh=True), ""))
    return [str(record) for record in here if record.swap or not record.object_id]
