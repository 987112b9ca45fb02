# SPDX-License-Identifier: GPL-2.0-or-later
"""Which requests to the engine are manual actions on a container: one rule for `/docker/` and for ubus.

The reconciler leaves a managed container as a manual action left it, until its section changes or a reconcile is asked for.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable

from agent.wire.natural import natural

CONTAINER = "docker.container"  # the ubus object that such requests stand for, whichever way they come
_ACTIONS = frozenset({"start", "stop", "restart", "kill", "pause", "unpause", "rename", "update", "remove"})
_RELOADING = frozenset({"HUP", "USR1", "USR2", "WINCH", "CONT"})


def is_manual(thing: str, method: str) -> bool:
    """Whether that method of that ubus object may be one; a `kill` is not with every signal."""
    return thing == CONTAINER and method in _ACTIONS


def manual_action(thing: str, method: str, query: Iterable[tuple[str, str]]) -> str:
    """The action to hold a container for, "" for none: a signal that asks a program to read its files again changes nothing
    that the reconciler would undo.
    """
    if not is_manual(thing, method):
        return ""
    # the engine takes the first value of a query (Go, net/url Values.Get)
    asked = next((value for name, value in query if name == "signal"), "")
    return "" if method == "kill" and _name(asked) in _RELOADING else method


def _name(text: str) -> str:
    """A signal's name without SIG, as the engine reads it: by name in any case, or by number."""
    number = natural(text)
    if number is None:
        return text.upper().removeprefix("SIG")
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return ""
