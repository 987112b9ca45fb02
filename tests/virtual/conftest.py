# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole agent on virtual time, started and without a section."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.virtual.world import World, a_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as made:
        made.start_agent()
        yield made
