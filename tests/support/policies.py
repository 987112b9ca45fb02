# SPDX-License-Identifier: GPL-2.0-or-later
"""The options of a container section that are not settings of the container: what the agent does with it."""

from __future__ import annotations

from agent.schema.validate import read_schema

# the form shows these where they are looked for, and all others under the subject `policy`
_ELSEWHERE = {"enabled", "state", "pull", "depends_on", "stack", "remove_volumes"}


def policies() -> set[str]:
    """Names of UCI options."""
    described = read_schema("container")["properties"]
    shown = {name for name, schema in described.items() if schema.get("x-tab") == "policy"}
    return shown | _ELSEWHERE
