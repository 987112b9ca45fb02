# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine says when it refuses a container for what it is, so that trying the same again is pointless.

Most of that comes as 400; some of it as 500, as any fault does, and only the words tell them apart.
"""

from __future__ import annotations

from agent.errors import EngineError

# lower case, of moby (daemon, runconfig, opts), runc and libnetwork; each was seen, or read in their source
_WORDS = (
    "invalid --security-opt",  # daemon/daemon_unix.go, parseSecurityOpt
    "decoding seccomp profile failed",
    "no log driver named",  # daemon/logger/factory.go
    "unknown log opt",
    "unknown or invalid runtime name",
    "unknown runtime specified",
    "invalid capadd",
    "invalid capdrop",
    "unknown capability",
    "invalid signal",
    "invalid ulimit type",
    "invalid mount config",
    "invalid volume specification",
    "invalid mode",
    "invalid reference format",
    "invalid ip address",
    "invalid mac address",
    "invalid isolation",
    "bad format for add-host",
    "conflicting options",
    "cannot share the host's network namespace",
    "is not in a separate kernel namespace",  # runc, sysctls
    "invalid containerport",
    "invalid port",
    "invalid range format",
    "could not select device driver",
    "unresolvable cdi devices",
    "cdi device injection failed",
    "unknown log driver",
)


def is_refusal(exc: EngineError) -> bool:
    """Whether the engine can never take what it was sent."""
    text = str(exc).lower()
    return exc.status == 400 or (exc.status >= 500 and any(words in text for words in _WORDS))
