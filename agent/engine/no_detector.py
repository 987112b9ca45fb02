# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps `requests` from loading a character set detector: 4 MiB that the agent would hold for nothing.

requests loads one with its first import (requests/compat.py) and asks it for the encoding of texts that name none. The
engine speaks JSON, which is UTF-8 (RFC 8259, 8.1). The package imports this module before docker-py.
"""

from __future__ import annotations

import sys
from types import ModuleType


class _Utf8(ModuleType):
    """As much of charset_normalizer as requests uses."""

    __version__ = "3.0.0"  # requests checks that it is one it knows

    @staticmethod
    def detect(data: bytes) -> dict[str, object]:
        del data
        return {"encoding": "utf-8", "confidence": 1.0, "language": ""}


if "requests" not in sys.modules:
    sys.modules.setdefault("charset_normalizer", _Utf8("charset_normalizer"))
