# SPDX-License-Identifier: GPL-2.0-or-later
"""A dockerd per test, run by the agent's daemon stage."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from tests.support.daemon_lab import DaemonLab
from tests.support.network import OwnNetwork

_numbers = itertools.count()


@pytest.fixture
def lab() -> Iterator[DaemonLab]:
    made = DaemonLab(OwnNetwork(f"ucidd{os.getpid()}x{next(_numbers)}"))
    yield made
    made.close()
