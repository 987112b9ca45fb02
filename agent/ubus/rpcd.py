# SPDX-License-Identifier: GPL-2.0-or-later
"""rpcd's login sessions over ubus (rpcd/session.c): who may do what, rights for a single session, a pending LuCI rollback.

It fails closed: without an answer within 2 s it raises BusError. A yes may be cached for 5 s; a no never is, and a
missing answer does not prolong a cached yes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable

from agent.errors import BusError
from agent.ubus.client import UbusClient
from agent.wire.ubus_message import Status

DEADLINE_S = 2.0  # a page waits for it
CACHE_S = 5.0  # a right that was taken away may be used for that long
_CACHE_LIMIT = 256
_ROLLBACK_MARGIN_S = 10.0  # rpcd restores the old files after the time-out, which takes a moment
_ROLLBACK_LIMIT_S = 3600.0
DEFAULT_SESSION = "0" * 32  # rpcd's default session, which every client has: it is not a login
_SESSION = re.compile(r"[0-9a-f]{32}")

Rights = Iterable[tuple[str, str]]  # (object, method)


def is_login(session: str) -> bool:
    """Whether the text has the form of a login session's id."""
    return bool(_SESSION.fullmatch(session)) and session != DEFAULT_SESSION


class Rpcd:
    """Implements `agent.api.port.Sessions`. `clock` is monotonic, `wall` unix time, both in seconds."""

    def __init__(
        self,
        bus: UbusClient,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._wall = wall
        self._granted: dict[tuple[str, str, str], float] = {}  # -> valid until

    async def allowed(self, session: str, object: str, method: str) -> bool:  # noqa: A002 - ubus's word
        """Whether the session may call that method of that object; False for an unknown session. Raises BusError."""
        key = (session, object, method)
        if self._granted.get(key, 0.0) > self._clock():
            return True
        self._granted.pop(key, None)
        # taken before the question, so that the answer is not cached longer than it can be true
        asked = self._clock()
        if not await self.allowed_now(session, object, method):
            return False
        # clear all entries: tracking the oldest is not worth the memory, and each is asked again soon
        if len(self._granted) >= _CACHE_LIMIT:
            self._granted.clear()
        self._granted[key] = asked + CACHE_S
        return True

    async def allowed_now(self, session: str, object: str, method: str) -> bool:  # noqa: A002 - ubus's word
        """Like `allowed`, without the cache. Note that asking keeps a session from timing out."""
        if not is_login(session):
            return False
        args = {"ubus_rpc_session": session, "scope": "ubus", "object": object, "function": method}
        try:
            answer = await self._bus.call("session", "access", args, timeout_s=DEADLINE_S)
        except BusError as exc:
            if exc.status != Status.NOT_FOUND:
                raise
            # "not found" comes from rpcd (no such session) or from ubusd (no rpcd); in the latter case nobody has decided
            try:
                await self._bus.lookup("session")
            except BusError:
                raise exc from None
            return False
        return answer.get("access") is True

    async def grant(self, session: str, rights: Rights) -> None:
        """Grants rights to one session, until it ends or they are revoked. Raises BusError."""
        await self._change("grant", session, rights)

    async def revoke(self, session: str, rights: Rights) -> None:
        """Revokes rights. Raises BusError."""
        gone = list(rights)
        for right in gone:
            self._granted.pop((session, *right), None)
        await self._change("revoke", session, gone)

    async def _change(self, method: str, session: str, rights: Rights) -> None:
        if not is_login(session):
            raise BusError("no login session", status=Status.PERMISSION_DENIED)
        objects = [list(right) for right in rights]
        if not objects:  # without objects rpcd would change the rights to all of them
            return
        args = {"ubus_rpc_session": session, "scope": "ubus", "objects": objects}
        await self._bus.call("session", method, args, timeout_s=DEADLINE_S)

    async def rollback_left_s(self) -> float:
        """Seconds for which LuCI may still roll back the last applied change; 0.0 if nothing is pending. Raises BusError.

        LuCI stores a note in the default session, empties it on confirmation, and leaves it there after a rollback
        (luci-base, controller/admin/uci.uc): only the note's time-out, in unix time, tells that it is over.
        """
        args = {"ubus_rpc_session": DEFAULT_SESSION, "keys": ["rollback"]}
        answer = await self._bus.call("session", "get", args, timeout_s=DEADLINE_S)
        values = answer.get("values")
        note = values.get("rollback") if isinstance(values, dict) else None
        until = note.get("timeout") if isinstance(note, dict) else None
        if isinstance(until, bool) or not isinstance(until, int):
            return 0.0
        left = until + _ROLLBACK_MARGIN_S - self._wall()
        # limited, so that a clock that jumped cannot block anything for ever
        return left if 0 < left < _ROLLBACK_LIMIT_S else 0.0
