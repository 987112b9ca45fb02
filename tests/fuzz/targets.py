# SPDX-License-Identifier: GPL-2.0-or-later
"""All that is fuzzed, by name."""

from __future__ import annotations

from tests.fuzz import files, pasted, uci_text, values, wire
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target for module in (uci_text, values, files, pasted, wire) for target in module.TARGETS
}
