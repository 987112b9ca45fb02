# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON to a client, whatever text is in it."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse


class JsonReply(JSONResponse):
    """Text that came from bytes that are no UTF-8 (a UCI file may hold any) is shown with `?` in their place."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
