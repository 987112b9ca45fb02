# SPDX-License-Identifier: GPL-2.0-or-later
"""Who comes in and who may: sockets, TLS, sessions, origins, tickets."""

from agent.engine.lean import stand_in, without_init

# uvicorn's command line stays out, and what starlette makes pages for developers with; before any module here imports them
without_init("uvicorn")
with stand_in("click"), stand_in("html"):
    import starlette.applications  # noqa: F401
    import uvicorn.config
    import uvicorn.server

vars(uvicorn)["Config"] = uvicorn.config.Config  # modules of uvicorn ask the package for it
