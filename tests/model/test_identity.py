# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import copy
import json

from agent.model.identity import Key


def test_a_key_is_its_text_and_stays_one_when_it_is_copied() -> None:
    key = Key("container", "web")
    assert (key, key.kind, key.section) == ("container:web", "container", "web")
    assert json.dumps({key: key}) == '{"container:web": "container:web"}'
    assert copy.deepcopy(key).section == Key.parse("container:web").section == "web"
    assert (Key.parse("daemon"), Key.parse("daemon").kind, Key.parse("daemon").section) == (
        "daemon",
        "daemon",
        "",
    )
