# SPDX-License-Identifier: GPL-2.0-or-later
"""The outgoing edge: the engine, files, UCI. Each third-party import sits behind one module here."""

import agent.clients.no_detector  # noqa: F401 - before any module here imports requests
