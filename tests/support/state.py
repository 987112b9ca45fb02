# SPDX-License-Identifier: GPL-2.0-or-later
"""The content of a state file, whether it was written as a whole or with appended changes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.apply.ports import Engine
from agent.plan.records import tags_of, visible
from agent.wire.record_lines import read


def state_of(folder: Path) -> dict[str, Any]:
    """The content in the form of version 0.1.0; `json.dumps` of it is a valid state file."""
    found = read((folder / "state.json").read_bytes())
    return {
        "version": 1,
        "instance": found.instance,
        "records": [asdict(record) for record in found.records.values()],
    }


def sections_of(folder: Path) -> dict[str, str]:
    """Container id -> section, for all engines."""
    records = read((folder / "state.json").read_bytes()).records.values()
    return {r.object_id: r.section for r in records if r.kind == "container" and r.object_id}


def open_records(folder: Path, engine: Engine) -> list[str]:
    """The records of unfinished works on the engine that answers."""
    records = list(read((folder / "state.json").read_bytes()).records.values())
    here = visible(records, tags_of(records, engine.identity(fresh=True), ""))
    return [str(record) for record in here if record.swap or not record.object_id]
