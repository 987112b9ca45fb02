# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints the translations template (gettext): every text of the pages, the menu and the rights, and what the forms take
from the schemas. `make pot` writes it to luci/po/templates/ucidockd.pot."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

LUCI = Path(__file__).parents[1]
PROJECT = LUCI.parent
TYPES = ("agent", "auth", "container", "firewall", "globals", "network", "proxies", "stack", "tls", "volume")
_STRING = r"'((?:[^'\\\n]|\\.)*)'"
_CALL = re.compile(rf"\b(?:_\({_STRING}|N_\([^,]+,\s*{_STRING},\s*{_STRING})")


def main() -> None:
    """Writes to standard output."""
    found: dict[tuple[str, str], list[str]] = {}
    for place, single, plural in (*_pages(), *_json_texts(), *_schemas()):
        if single:
            found.setdefault((single, plural), []).append(place)
    print('msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8"')
    for (single, plural), places in sorted(found.items()):
        print(f"\n#: {' '.join(dict.fromkeys(places))}\nmsgid {json.dumps(single, ensure_ascii=False)}")
        if plural:
            print(f'msgid_plural {json.dumps(plural, ensure_ascii=False)}\nmsgstr[0] ""\nmsgstr[1] ""')
        else:
            print('msgstr ""')


def _pages() -> Iterator[tuple[str, str, str]]:
    for path in sorted((LUCI / "htdocs").rglob("*.js")):
        if path.parent.name == "xterm":
            continue
        for call in _CALL.finditer(path.read_text()):
            single, one, many = (re.sub(r"\\(.)", r"\1", text or "") for text in call.groups())
            yield path.name, single or one, many


def _json_texts() -> Iterator[tuple[str, str, str]]:
    for path in sorted((LUCI / "root").rglob("*.json")):
        for node in json.loads(path.read_text()).values():
            yield path.name, node.get("title") or node.get("description") or "", ""


def _schemas() -> Iterator[tuple[str, str, str]]:
    for kind in TYPES:
        path = PROJECT / f"schemas/{kind}.schema.json"
        if not path.exists():
            continue
        for option in json.loads(path.read_text())["properties"].values():
            yield path.name, option["title"], ""
            yield path.name, option["description"], ""


if __name__ == "__main__":
    main()
