# SPDX-License-Identifier: GPL-2.0-or-later
"""Request heads that two parsers could read in two ways (RFC 9112 sections 2.2, 5.2, 6.3, 11.2; RFC 3986 sections 2.4, 6.2):
refused before parsing. Names under `/docker/` are the engine's, which lets a network be called anything.

h11 forgives some of them (a bare line feed, a folded line, length and transfer coding together). Behind a proxy that
forgives others, one request would be two.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

END = b"\r\n\r\n"
HEADERS_LIMIT = 100
HEAD_LIMIT = 16 * 1024  # bytes
_LONG, _MANY = f"a head of more than {HEAD_LIMIT} bytes", f"more than {HEADERS_LIMIT} headers"
TOO_LARGE = frozenset({_LONG, _MANY})
"""Problems of the size, for which HTTP has an answer of its own (431, RFC 6585)."""

_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS"})
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TARGET = re.compile(rb"/[\x21-\x7e]*")
_PATH = re.compile(rb"[!-~]*")
_STRANGE = re.compile(rb"[%?#;\\]|//|/\.{1,2}(/|\Z)")
_NAMED = b"/docker/"
_STRANGE_IN_NAMES = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029]|%[0-9A-Fa-f]{2}|//|[/\\]\.{1,2}(?:[/\\]|\Z)"
)
_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"origin", b"authorization", b"upgrade"})


def head_problem(data: bytes) -> str | None:
    """What is wrong with the head that `data` starts with; a head that is not complete yet is judged so far."""
    end = data.find(END)
    head = data if end < 0 else data[:end]
    if len(head) > HEAD_LIMIT:
        return _LONG
    if _BARE.search(head):
        return "a line ends without CR LF"
    if _CONTROL.search(head):
        return "a control character in the head"
    lines = head.split(b"\r\n")
    if lines[0] == b"" and len(lines) > 1:
        return "an empty line before the request"
    if any(line[:1] in (b" ", b"\t") for line in lines[1:]):
        return "a folded header"
    return None if end < 0 else _problem(lines)


def path_problem(raw: bytes) -> str | None:
    """What is wrong with a path as it came: it must mean the same to whoever decodes it, once or twice, or tidies it.

    After one decoding it is printable ASCII, and holds no `%`, which a second one would change, no delimiter of
    anything (`?`, `#`, `;`, a backslash), no empty segment, no `.` and no `..`. Under `/docker/` it is any text but for
    control characters and what a second decoding or tidying would change.
    """
    path = unquote_to_bytes(raw)
    plain = (
        _has_names_only(path)
        if path.startswith(_NAMED)
        else (_PATH.fullmatch(path) is not None and _STRANGE.search(path) is None)
    )
    return None if plain else "the path has a character or a segment that is not taken"


def _has_names_only(path: bytes) -> bool:
    try:
        return _STRANGE_IN_NAMES.search(path.decode()) is None
    except UnicodeDecodeError:
        return False


def _problem(lines: list[bytes]) -> str | None:
    words = lines[0].split(b" ")
    if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return "no HTTP/1.1 request line"
    if words[0] not in _METHODS:
        return "this method is not taken"
    if not _TARGET.fullmatch(words[1]) or b"#" in words[1]:
        return "the target is not a path"
    if problem := path_problem(words[1].partition(b"?")[0]):
        return problem
    if len(lines) - 1 > HEADERS_LIMIT:
        return _MANY
    seen: set[bytes] = set()
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or name != name.strip() or not name:
            return "a header without a name"
        name = name.lower()
        if name in seen and name in _ONCE:
            return f"two {name.decode('latin-1')} headers"
        if name == b"upgrade" and value.strip().lower() == b"websocket" and words[0] != b"GET":
            return "a WebSocket is opened by GET"
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            return "a transfer coding other than chunked"
        seen.add(name)
    if {b"content-length", b"transfer-encoding"} <= seen:
        return "content-length and transfer-encoding together"
    return None


# Whole numbers in text that a client sent: a cursor, an offset, a length.


HIGHEST = 2**63 - 1  # what the engine and JSON readers hold; Python itself refuses more than 4300 digits


def natural(text: str, *, high: int = HIGHEST) -> int | None:
    """The number from 0 to `high` that `text` is in decimal digits; None for everything else."""
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0")
    if len(digits) > len(str(high)):
        return None
    number = int(digits or "0")
    return number if number <= high else None
