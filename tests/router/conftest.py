# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures: a router's root directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.router.rootfs import Router
from tests.support.dockerd import is_root
from tests.support.real_uci import why_not


@pytest.fixture
def router(tmp_path: Path) -> Router:
    if reason := why_not():
        pytest.skip(reason)
    if not is_root():
        pytest.skip("chroot needs root")
    return Router.make(tmp_path / "root")
