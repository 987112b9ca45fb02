# SPDX-License-Identifier: GPL-2.0-or-later
"""Identity of the objects that we create: labels, the canonical versioned spec and its hash.

The hash covers our own canonical JSON, never the structures of a library, so that an upgrade of ucidockd, docker-py
or the engine recreates nothing. SPEC_VERSION is incremented when the meaning of a field changes, not when a field is
added: unset fields are not part of the JSON.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import fields, is_dataclass
from typing import Any

SPEC_VERSION = 1  # part of every recorded hash

LABEL_OWNER = "ucidockd.owner"
LABEL_INSTANCE = "ucidockd.instance"
LABEL_SECTION = "ucidockd.section"
LABEL_SPEC_VERSION = "ucidockd.spec-version"
LABEL_NONCE = "ucidockd.nonce"
# labels of containers and volumes used for copying volumes
LABEL_HELPER = "ucidockd.helper"  # INSTANCE/RUN of the agent that created it
LABEL_COPY_OF = "ucidockd.copy-of"  # on a volume: the volume that it is a copy for
LABEL_FILLED = "ucidockd.filled"  # on a volume that was made for an archive: which attempt made it
LABEL_SAVED = "ucidockd.saved"  # on a saved copy: the key for restoring it
OWNER = "ucidockd"

# valid ids and names of containers, networks and volumes (moby, daemon/names); section names match it too
ID = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}"
ID_FORM = "letters, digits, `_`, `.` and `-`, and starts with a letter or digit"


class Key(str):
    """The name of a resource in plans, status, records and answers: `container:web`.

    It is a string, so it can be a dict key, sorts, and needs no conversion to JSON.
    """

    __slots__ = ()

    def __new__(cls, kind: str, section: str) -> Key:
        return _joined(cls, kind, section)

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # copies are made with both parts
        return self.kind, self.section

    @classmethod
    def parse(cls, text: str) -> Key:
        """Converts a text to a Key. A text without a colon is only a kind."""
        return super().__new__(cls, text)

    @property
    def kind(self) -> str:
        """`container`, `network`, `volume`, ..."""
        return self.partition(":")[0]

    @property
    def section(self) -> str:
        """The name of the UCI section."""
        return self.partition(":")[2]


def in_words(key: str) -> str:
    """`container web`, for use in sentences."""
    return key.replace(":", " ", 1)


@functools.lru_cache(maxsize=4096)
def _joined(cls: type[Key], kind: str, section: str) -> Key:
    """Creates a Key, cached: a pass asks for each key about twenty times."""
    return str.__new__(cls, f"{kind}:{section}")


def own_labels(*, instance: str, section: str, nonce: str) -> dict[str, str]:
    """The labels of every object that we create. They are hints: only state.json proves ownership."""
    return {
        LABEL_OWNER: OWNER,
        LABEL_INSTANCE: instance,
        LABEL_SECTION: section,
        LABEL_SPEC_VERSION: str(SPEC_VERSION),
        LABEL_NONCE: nonce,
    }


def canonical(value: Any) -> Any:
    """`value` as plain JSON data. Unset fields are left out, so that new fields do not change old hashes."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in fields(value))
        return {name: canonical(item) for name, item in pairs if item is not None and item != ()}
    if isinstance(value, tuple):
        return [canonical(item) for item in value]
    return value


def masked(spec: dict[str, Any]) -> dict[str, Any]:
    """A canonical spec with hashed environment values, safe for state.json, status and plans.

    Every environment value is hashed, not only those with secret-looking names: names do not reliably tell what must
    not be written to flash.
    """
    hidden = dict(spec)
    if "env" in hidden:
        hidden["env"] = [[key, fingerprint(value)] for key, value in hidden["env"]]
    if "seccomp" in hidden:  # not secret, but long
        hidden["seccomp"] = fingerprint(hidden["seccomp"])
    return hidden


def fingerprint(value: str) -> str:
    """A short hash in place of a value that must not be stored."""
    return "sha256:" + hashlib.sha256(value.encode()).hexdigest()[:16]


def spec_hash(spec: dict[str, Any]) -> str:
    """Hash of a masked canonical spec, prefixed with the spec version: `v1:<hex>`."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"v{SPEC_VERSION}:" + hashlib.sha256(text.encode()).hexdigest()[:32]


def version_of(spec_hash: str) -> int:
    """The spec version of a hash."""
    return int(spec_hash.partition(":")[0].removeprefix("v"))
