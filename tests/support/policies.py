# SPDX-License-Identifier: GPL-2.0-or-later
"""The schemas with their texts for people, and the options of a container section that are policy of the agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_SCHEMAS = Path(__file__).parents[2] / "schemas"

# the form shows these where users look for them, and all others under the subject `policy`
_ELSEWHERE = {"enabled", "state", "pull", "depends_on", "stack", "remove_volumes"}


def read_schema(kind: str) -> dict[str, Any]:
    """The schema of a section type, as in its file."""
    found: dict[str, Any] = json.loads((_SCHEMAS / f"{kind}.schema.json").read_text())
    return found


def policies() -> set[str]:
    """Names of the policy options."""
    described = read_schema("container")["properties"]
    shown = {name for name, schema in described.items() if schema.get("x-tab") == "policy"}
    return shown | _ELSEWHERE
