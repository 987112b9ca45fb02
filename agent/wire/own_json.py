# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON of our own files (state.json, daemon.json, holds.json): they may be damaged, or edited by hand.

What cannot be written again as it was read (NaN, half of a surrogate pair, an endless number, nesting without end) is
refused here, once, so that nobody behind stumbles over it.
"""

from __future__ import annotations

import json
from typing import Any


def json_object(data: bytes) -> dict[str, Any]:
    """The one object in these bytes. Raises ValueError for anything else."""
    try:
        found = json.loads(data)
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found
