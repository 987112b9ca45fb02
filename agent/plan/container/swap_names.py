# SPDX-License-Identifier: GPL-2.0-or-later
"""The names that two containers have while one replaces the other (`agent.apply.swap`).

They carry the new container's nonce, so that nothing else has such a name. Version 0.1.0 left the nonce out: what it
began is still understood.
"""

from __future__ import annotations

import re
from typing import Literal

Role = Literal["old", "new"]
_FORM = re.compile(r"(.+)\.ucidockd-(old|new)(?:-[0-9a-f]+)?")


def swap_name(name: str, role: Role, nonce: str) -> str:
    """The name of the new container before the switch, or of the old one after it."""
    return f"{name}.ucidockd-{role}-{nonce}"


def name_outside(name: str, role: Role) -> str:
    """The name that a container of that role has outside of a swap, "" where it is not in one."""
    match = _FORM.fullmatch(name)
    return match[1] if match is not None and match[2] == role else ""
