# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures: the application on TCP, over an engine that counts what reaches it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.tcp import CORS, TcpController, serving_tcp


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpController]:
    with serving_tcp(tmp_path_factory.mktemp("attacks"), "127.0.0.1:0", cors_origin=(CORS,)) as made:
        yield made
