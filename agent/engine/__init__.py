# SPDX-License-Identifier: GPL-2.0-or-later
"""The Docker Engine as a client: calls, streams, TLS, large bodies."""

import agent.engine.lean  # noqa: F401 - before any module here imports requests
