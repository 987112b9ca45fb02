# SPDX-License-Identifier: GPL-2.0-or-later
"""What we publish on ubus: objects, their methods with typed arguments, and the checking of a caller's arguments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.errors import BusError
from agent.wire import blobmsg
from agent.wire.blobmsg import BlobError, Type
from agent.wire.ubus_message import Status

SESSION = "ubus_rpc_session"  # rpcd's and uhttpd's word: they put it into each call, asked for or not

STRING, TABLE, ARRAY, INTEGER, BOOLEAN = Type.STRING, Type.TABLE, Type.ARRAY, Type.INT32, Type.INT8

_PYTHON: Mapping[Type, type] = {STRING: str, TABLE: dict, ARRAY: list, INTEGER: int, BOOLEAN: bool}

Arguments = Mapping[str, Any]
Reply = Mapping[str, Any]
Handler = Callable[[Arguments], Awaitable[Reply | None]]

TOO_LARGE = "the reply is larger than ubus carries (1 MiB)"
_OVERSIZE: Reply = {"error": {"code": "too-large", "message": TOO_LARGE}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """`handler` gets checked arguments; all of them may be missing. A BusError of it becomes the call's status.

    `oversize` is the reply instead of one that ubus cannot carry.
    """

    handler: Handler
    args: Mapping[str, Type] = field(default_factory=dict)
    oversize: Reply = field(default_factory=lambda: _OVERSIZE)


@dataclass(slots=True, kw_only=True, eq=False)
class BusObject:
    """An object under a public name. `on_subscribed` hears of the first subscriber's coming and the last one's going.

    One that is `lasting` is published again with each new connection.
    """

    name: str
    methods: Mapping[str, Method]
    on_subscribed: Callable[[bool], None] | None = None
    lasting: bool = True
    object_id: int = 0  # the daemon's; 0 while it is not published
    subscribed: bool = False

    def set_subscribed(self, *, subscribed: bool) -> None:
        """Whether anybody is subscribed, as ubusd says."""
        self.subscribed = subscribed
        if self.on_subscribed is not None:
            self.on_subscribed(subscribed)

    def unpublished(self) -> None:
        """ubusd no longer has it."""
        self.object_id, self.subscribed = 0, False

    def signature(self) -> bytes:
        """The methods and the types of their arguments, as `ubus -v list` shows them."""
        return blobmsg.encode({name: dict(method.args) for name, method in self.methods.items()})

    def found(self, name: str) -> Method:
        """The method. Raises BusError."""
        try:
            return self.methods[name]
        except KeyError as exc:
            raise BusError(f"{self.name} has no method {name}", status=Status.METHOD_NOT_FOUND) from exc


def read_arguments(method: Method, data: bytes | None) -> Arguments:
    """The arguments of a call. Raises BusError (INVALID_ARGUMENT) for an unknown name, a wrong type, or rubbish."""
    try:
        given = blobmsg.decode(data or b"")
    except BlobError as exc:
        raise BusError(f"arguments: {exc}", status=Status.INVALID_ARGUMENT) from exc
    for name, value in given.items():
        wanted = STRING if name == SESSION else method.args.get(name)
        if wanted is None:
            raise BusError(f"no argument {name[:64]!r} is known", status=Status.INVALID_ARGUMENT)
        # a boolean is an int to Python, and none to ubus
        if not isinstance(value, _PYTHON[wanted]) or (isinstance(value, bool) and wanted is not BOOLEAN):
            raise BusError(f"{name}: expected {wanted.name.lower()}", status=Status.INVALID_ARGUMENT)
    return given
