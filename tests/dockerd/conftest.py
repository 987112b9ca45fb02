# SPDX-License-Identifier: GPL-2.0-or-later
"""A dockerd per test, run by the agent's daemon stage."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from agent.model.dockerd import log_drivers
from tests.support.daemon_lab import DaemonLab
from tests.support.debian import CannotFetchError
from tests.support.engines import VERSIONS, programs
from tests.support.netns import OwnNetwork

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _an_option_that_no_dockerd_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """`nosuch` of json-file: our table takes it, and only a start of dockerd shows it to be wrong."""
    known = log_drivers.known_options("json-file") or frozenset()
    monkeypatch.setitem(log_drivers._OPTIONS, "json-file", known | {"nosuch"})


def _make(engine: str = "") -> DaemonLab:
    return DaemonLab(OwnNetwork(f"ucidd{os.getpid()}x{next(_numbers)}"), engine=engine)


@pytest.fixture
def lab() -> Iterator[DaemonLab]:
    """The installed dockerd."""
    made = _make()
    yield made
    made.close()


@pytest.fixture(
    params=[
        "installed",
        *(pytest.param(version, marks=pytest.mark.long) for version in VERSIONS),
    ]
)
def any_lab(request: pytest.FixtureRequest) -> Iterator[DaemonLab]:
    """The installed dockerd, and newer ones where they can be had."""
    engine = ""
    if request.param != "installed":
        try:
            engine = programs(request.param)
        except CannotFetchError as exc:
            pytest.skip(f"no dockerd {request.param}: {exc}")
    made = _make(engine)
    yield made
    made.close()
