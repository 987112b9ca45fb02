# SPDX-License-Identifier: GPL-2.0-or-later
"""What we publish on ubus: objects, their methods with typed arguments, and the check of a caller's arguments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.errors import BusError
from agent.wire import blobmsg
from agent.wire.blobmsg import BlobError, Type
from agent.wire.ubus_message import Status

SESSION = "ubus_rpc_session"  # rpcd and uhttpd add this argument to each call

STRING, TABLE, ARRAY, INTEGER, BOOLEAN = Type.STRING, Type.TABLE, Type.ARRAY, Type.INT32, Type.INT8

# what each type is decoded to
_PYTHON: Mapping[Type, type] = {STRING: str, TABLE: dict, ARRAY: list, INTEGER: int, BOOLEAN: bool}

Arguments = Mapping[str, Any]
Reply = Mapping[str, Any]
Handler = Callable[[Arguments], Awaitable[Reply | None]]

TOO_LARGE = "the reply is larger than ubus carries (1 MiB)"
_OVERSIZE: Reply = {"error": {"code": "too-large", "message": TOO_LARGE}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """`handler` gets checked arguments, each of which may be missing. If it raises BusError, that becomes the call's
    status.

    `oversize` is sent instead of a reply that is too large for ubus.
    """

    handler: Handler
    args: Mapping[str, Type] = field(default_factory=dict)
    oversize: Reply = field(default_factory=lambda: _OVERSIZE)


@dataclass(slots=True, kw_only=True, eq=False)
class BusObject:
    """An object with a public name. `on_subscribed` is called when the first subscriber comes and when the last one leaves.

    A `lasting` object is published again after each reconnection.
    """

    name: str
    methods: Mapping[str, Method]
    on_subscribed: Callable[[bool], None] | None = None
    lasting: bool = True
    object_id: int = 0  # assigned by ubusd; 0 while the object is not published
    subscribed: bool = False

    def set_subscribed(self, *, subscribed: bool) -> None:
        """Takes ubusd's report whether there are subscribers."""
        self.subscribed = subscribed
        if self.on_subscribed is not None:
            self.on_subscribed(subscribed)

    def unpublished(self) -> None:
        """Resets the object: ubusd no longer has it."""
        self.object_id, self.subscribed = 0, False

    def signature(self) -> bytes:
        """The methods and the types of their arguments, as `ubus -v list` shows them."""
        return blobmsg.encode({name: dict(method.args) for name, method in self.methods.items()})

    def found(self, name: str) -> Method:
        """The method with this name. Raises BusError."""
        try:
            return self.methods[name]
        except KeyError as exc:
            raise BusError(f"{self.name} has no method {name}", status=Status.METHOD_NOT_FOUND) from exc


def read_arguments(method: Method, data: bytes | None) -> Arguments:
    """Decodes and checks the arguments of a call. Raises BusError (INVALID_ARGUMENT) for an unknown name, a wrong
    type, or invalid data.
    """
    try:
        given = blobmsg.decode(data or b"")
    except BlobError as exc:
        raise BusError(f"arguments: {exc}", status=Status.INVALID_ARGUMENT) from exc
    for name, value in given.items():
        wanted = STRING if name == SESSION else method.args.get(name)
        if wanted is None:
            raise BusError(f"unknown argument {name[:64]!r}", status=Status.INVALID_ARGUMENT)
        # in Python a boolean is an int, on ubus it is not
        if not isinstance(value, _PYTHON[wanted]) or (isinstance(value, bool) and wanted is not BOOLEAN):
            raise BusError(f"{name}: expected {wanted.name.lower()}", status=Status.INVALID_ARGUMENT)
    return given
