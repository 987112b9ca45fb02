# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients of the Docker Engine: calls, streams, TLS, large bodies, registries."""

import agent.engine.lean  # noqa: F401 - before any module here imports requests
