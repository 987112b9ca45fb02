# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of state.json: a JSON document with all records, then one line for each change since.

 {"version": 1, "instance": "0123456789ab", "records": [
 {"kind": "container", "name": "web", "nonce": "...", "section": "web", ...}
 ]}
 +5f2a90c1 [{"nonce": "...", "object_id": "..."}]

A line has the changed fields of every record that one change touched, so a change is complete or not there at all.
The eight digits are the CRC-32 of the rest of the line. A line that a power failure cut short, or of which some pages
did not reach the disk, is ignored, and so is everything after it.

Records of engines other than the last one are under "elsewhere" in the document. Version 0.1.0 knows a single engine
and does not look there.

A field with its default value is left out, so the defaults of `Record` are part of the format. Fields that this
version does not know are ignored. Version 0.1.0 wrote only the document, which is read unchanged.
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from agent.model.identity import SPEC_VERSION, spec_hash, version_of
from agent.model.observed import ASKED, SWAPS, Record

# JSON of our own files (state.json, daemon.json, holds.json), which may be damaged or edited by a person.
#
# Content that cannot be written again as it was read (NaN, half of a surrogate pair, an endless number, endless
# nesting) is refused here for all readers.


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in these bytes. Raises ValueError for anything else."""
    try:
        found = json.loads(data)
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
        # record by record: encoding a thousand at once takes megabytes that are not returned to the system
        for value in (list(found), *found.values()):
            for part in value if isinstance(value, list) else [value]:
                json.dumps(part, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc
    return found


VERSION = 1  # of the document; another one is refused
_END = b"\n]}\n"
_LINE = re.compile(rb"\+([0-9a-f]{8}) (.*)")  # a checksum, and the changes
_GONE = "gone"  # takes the place of the fields of a dropped record


@dataclass(frozen=True, slots=True, kw_only=True)
class StateContents:
    """The contents of a state file. `folded` is the size of its document in bytes, 0 if it is not in our form.
    `is_whole`: nothing follows the last valid change. `damaged`: valid changes follow an invalid one.
    """

    instance: str
    records: dict[str, Record]
    folded: int
    is_whole: bool
    damaged: bool


def document(instance: str, records: Iterable[Record], elsewhere: Iterable[Record] = ()) -> bytes:
    """The whole file without changes: one record per line, sorted by nonce."""
    head = f'"version": {VERSION}, "instance": {json.dumps(instance)}'
    others = _lines(elsewhere)
    if others:
        head += f', "elsewhere": [\n{others}\n]'
    return f'{{{head}, "records": [\n{_lines(records)}\n]}}\n'.encode()


def _lines(records: Iterable[Record]) -> str:
    return ",\n".join(_text(_fields(None, record)) for record in sorted(records, key=lambda r: r.nonce))


def change_line(before: Mapping[str, Record], after: Mapping[str, Record]) -> bytes:
    """The line that turns `before` into `after`; b"" if they are equal."""
    # an untouched record is the same object: comparing all fields would make each change as expensive as all records
    items = [
        _fields(before.get(nonce), record)
        for nonce, record in after.items()
        if before.get(nonce) is not record and before.get(nonce) != record
    ]
    items += [{"nonce": nonce, _GONE: True} for nonce in before.keys() - after.keys()]
    if not items:
        return b""
    text = _text(items).encode()
    return b"+%08x %s\n" % (zlib.crc32(text), text)


def read(data: bytes) -> StateContents:
    """Parses a state file. Raises ValueError if the document, or a complete line, is not ours."""
    # find the end of the document by its last line: lines after it may be cut short, which must not affect the document
    end = data.find(_END)
    size = folded = end + len(_END) if end >= 0 else 0
    found = json_object(data[:folded] if folded else data)
    try:
        items = {item["nonce"]: item for item in (*found.get("elsewhere", ()), *found["records"])}
        instance = str(found["instance"])
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"no records, or no instance: {exc!r}") from exc
    *lines, rest = data[folded:].split(b"\n") if folded else [b""]
    damaged = False
    for number, line in enumerate(lines):
        changes = _changes(line)
        if changes is None:
            # an incomplete last line comes from a power failure; if complete ones follow it, something else has
            # damaged the file
            damaged = any(_changes(later) is not None for later in lines[number + 1 :])
            break
        _apply(items, changes)
        size += len(line) + 1
    found.clear()  # frees each item as soon as it has become a record
    whole = bool(folded) and size + len(rest) == len(data) and not rest
    return StateContents(
        instance=instance, records=_records(items), folded=folded, is_whole=whole, damaged=damaged
    )


def _changes(line: bytes) -> Any:
    """The changes in a line, None if it is incomplete."""
    found = _LINE.fullmatch(line)
    if found is None or int(found[1], 16) != zlib.crc32(found[2]):
        return None
    return json_object(b'{"changes":%s}' % found[2])["changes"]


def _apply(items: dict[str, Any], changes: Any) -> None:
    try:
        for change in changes:
            if change.get(_GONE):
                items.pop(change["nonce"], None)
            else:
                items[change["nonce"]] = items.get(change["nonce"], {}) | change
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"a change of a record: {exc!r}") from exc


def _fields(before: Record | None, record: Record) -> dict[str, Any]:
    """The fields in which a record differs from the one before, or from the defaults."""
    found = {"nonce": record.nonce}
    for each in _FIELDS:
        # leave out defaults: most fields have theirs, and the file is on flash
        value = getattr(record, each.name)
        if before is not None:
            old = getattr(before, each.name)
        else:
            old = each.default_factory() if each.default_factory is not MISSING else each.default
        if value != old:
            found[each.name] = value
    return found


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _records(items: dict[str, Any]) -> dict[str, Record]:
    try:
        return {nonce: _record(items.pop(nonce)) for nonce in list(items)}
    except (TypeError, AttributeError) as exc:
        raise ValueError(f"a record: {exc}") from exc


def _record(item: Mapping[str, Any]) -> Record:
    """Raises ValueError for a value that no record of ours has; unknown fields are ignored."""
    values: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in item.items() if name in _FORMS
    }
    # many records share these values: intern them
    values |= {name: sys.intern(values[name]) for name in _SHARED if type(values.get(name)) is str}
    for name, value in values.items():
        if not _IS[_FORMS[name]](value):
            raise ValueError(f"{name} of a record: expected {_FORMS[name]}")
    for name, words in _CLOSED.items():
        if values.get(name, "") not in words:
            raise ValueError(f"{name} of a record: expected one of {', '.join(filter(None, words))}")
    for name in ("spec_hash", "failed_hash"):
        if not _HASH.fullmatch(values.get(name, "")):
            raise ValueError(f"{name} of a record: expected v<version>:<hash>")
    record = Record(**values)
    # planning trusts a spec, so it has to be the written one; the spec of another spec version is not checked
    stated = record.spec_hash
    is_ours = bool(stated) and version_of(stated) == SPEC_VERSION
    if (is_ours and spec_hash(record.spec) != stated) or (record.spec and not stated):
        raise ValueError(
            f"the spec of {record.kind} {record.section} is not the one that its hash was made of"
        )
    return record


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_FIELDS = fields(Record)
_FORMS = {f.name: str(f.type) for f in _FIELDS}
_SHARED = ("kind", "engine", "image_id", "digest")  # texts that many records have: kept once in memory
# fields with few words: another one comes from damage, or from a newer version
_CLOSED = {"kind": ("container", "network", "volume"), "swap": SWAPS, "asked": ASKED}
_HASH = re.compile(r"|v[0-9]{1,9}:.*")  # empty, or with its version
_IS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "bool | None": lambda value: value is None or isinstance(value, bool),
    "float": _is_number,
    "float | None": lambda value: value is None or _is_number(value),
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "dict[str, str]": lambda value: (
        isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    ),
    "tuple[str, ...]": lambda value: isinstance(value, tuple) and all(isinstance(v, str) for v in value),
}
