# SPDX-License-Identifier: GPL-2.0-or-later
"""Access to the API: sockets, TLS, sessions, origins, tickets."""

import sys

from agent.engine.lean import load, stand_in

# Must run before a module here imports them. Loads uvicorn without its command line and logging configuration, and
# starlette without its debug pages.
stand_in("uvicorn")
load(
    "uvicorn.server",
    {
        # versions up to 0.35 colour messages with it; we show none of them
        "click": {"style": lambda text, **colours: text},
        "configparser": {"RawConfigParser": object},
        "logging.config": {},
    },
)
load("starlette.applications", {"html": {}})
# modules of uvicorn read it from the package
vars(sys.modules["uvicorn"])["Config"] = vars(sys.modules["uvicorn.config"])["Config"]
