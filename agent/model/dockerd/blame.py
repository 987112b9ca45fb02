# SPDX-License-Identifier: GPL-2.0-or-later
"""Which option dockerd's last words are about, when it does not start with settings that it has never run with. Pure.

`dockerd --validate` knows few mistakes, and none before 23.0: a storage option of another driver, an unknown log option, a
user that does not exist are found only by starting. Before it comes `agent.dockerd.change`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from agent.model.dockerd.settings import Document, Json
from agent.model.dockerd.table import TABLE, DaemonOption, put, value_at, without_key

_PARTS = re.compile(r"[a-z0-9]+")
# words of dockerd for what an option sets (moby daemon/graphdriver)
_TOPICS = {"storage-driver": "graphdriver", "storage-opts": "graphdriver"}
_SHORTEST = 3  # characters of a value that says something


def suspects(document: Document, words: str) -> tuple[str, ...]:
    """Keys of the table that the words name by value or by name, the likeliest first: of two alike one entry of a list
    before what governs them all, as storage options before the driver whose name begins each of its errors.

    `data-root` is none: it is in most of what dockerd says, and without it another engine would run.
    """
    said = words.lower()
    found = {
        row.key: (-weight, not row.many)
        for row in TABLE
        if row.key != "data-root"
        and value_at(document, row.key) not in (None, row.default)
        and (weight := _weight(row, value_at(document, row.key), said))
    }
    return tuple(sorted(found, key=found.__getitem__))


def without(document: Document, key: str) -> dict[str, Json]:
    """The document as if UCI did not have that option."""
    left = without_key(document, key)
    put(left, key, next(row.default for row in TABLE if row.key == key))
    return left


def _weight(row: DaemonOption, value: Json, said: str) -> int:
    by_value = any(len(text) >= _SHORTEST and _has(said, text.lower()) for text in _texts(value))
    topic = _TOPICS.get(row.key, "")
    parts = [part.rstrip("s") for part in _PARTS.findall(row.key.rpartition(".")[2]) if part != "default"]
    by_name = (topic and topic in said) or all(part in said for part in parts)
    return 2 * by_value + bool(by_name)


def _has(said: str, text: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(text)}(?![a-z0-9])", said) is not None


def _texts(value: Json) -> Iterator[str]:
    """The words of a value, those of `key=value` and `user:group` apart."""
    match value:
        case str():
            yield value
            yield from (part for part in re.split("[=:]", value) if not part.isdecimal())
        case list():
            for item in value:
                yield from _texts(item)
        case dict():
            for name, item in value.items():
                yield str(name)
                yield from _texts(item)
