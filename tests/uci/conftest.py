# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures: the real `uci`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.real_uci import RealUci, why_not


@pytest.fixture
def uci(tmp_path: Path) -> RealUci:
    """On tmp_path/config; staged changes are in tmp_path/save."""
    if reason := why_not():
        pytest.skip(reason)
    for folder in ("config", "save"):
        (tmp_path / folder).mkdir(exist_ok=True)
    return RealUci(tmp_path / "config", tmp_path / "save")
