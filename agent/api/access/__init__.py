# SPDX-License-Identifier: GPL-2.0-or-later
"""Who comes in and who may: sockets, TLS, sessions, origins, tickets."""

import sys

from agent.engine.lean import load, stand_in

# before any module here imports them: uvicorn without its command line and its files that set logging up, starlette without
# its pages for developers
stand_in("uvicorn")
load(
    "uvicorn.server",
    {
        "click": {"style": lambda text, **colours: text},  # up to 0.35 for messages that are not shown
        "configparser": {"RawConfigParser": object},
        "logging.config": {},
    },
)
load("starlette.applications", {"html": {}})
# modules of uvicorn ask the package for it
vars(sys.modules["uvicorn"])["Config"] = vars(sys.modules["uvicorn.config"])["Config"]
