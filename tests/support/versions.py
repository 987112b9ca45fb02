# SPDX-License-Identifier: GPL-2.0-or-later
"""A box on an engine of each available version: the installed one in every run, the newer ones in long runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from tests.support import engines
from tests.support.box import Box
from tests.support.debian import CannotFetchError
from tests.support.dockerd import PrivateDockerd

INSTALLED = "installed"
VERSIONS = [INSTALLED, *(pytest.param(version, marks=pytest.mark.long) for version in engines.VERSIONS)]


@contextmanager
def an_engine(version: str) -> Iterator[PrivateDockerd]:
    """A running dockerd of that version. Skips the test if it cannot be fetched."""
    try:
        own = [] if version == INSTALLED else [engines.programs(version)]
    except CannotFetchError as exc:
        pytest.skip(str(exc))
    dockerd, path = PrivateDockerd(subnet=4), os.environ["PATH"]
    os.environ["PATH"] = ":".join([*own, path])
    try:
        dockerd.start()
        dockerd.import_busybox()
        yield dockerd
    finally:
        dockerd.close()
        os.environ["PATH"] = path


@contextmanager
def a_box(engine: PrivateDockerd, folder: Path) -> Iterator[Box]:
    """An empty configuration on the engine; everything on the engine is removed afterwards."""
    client = docker.DockerClient(base_url=engine.host, version="auto")
    box = Box.make(folder, engine, client)
    try:
        yield box
    finally:
        box.clean()
        client.close()
