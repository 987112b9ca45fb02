# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures: those of the controller's tests."""

from __future__ import annotations

from tests.api.conftest import containers

__all__ = ["containers"]
