# SPDX-License-Identifier: GPL-2.0-or-later
"""What the body of a refused request says (Engine API, "Errors": `{"message": ...}`; our own answers have it too)."""

from __future__ import annotations

import json

LIMIT = 1024  # characters: a body may echo what it was sent


def error_message(body: bytes, status: int, *, who: str = "the engine", limit: int = LIMIT) -> str:
    """Its `message`, or a body that is not JSON (a proxy's) as it is, cut to `limit` characters; else the bare status."""
    try:
        found = json.loads(body)
        text = str(found.get("message", "")) if isinstance(found, dict) else ""
    except RecursionError:
        text = ""
    except ValueError:
        text = body.decode("utf-8", "replace").strip()
    if not text:
        return f"{who} answered {status}"
    return text if len(text) <= limit else text[:limit] + "..."
