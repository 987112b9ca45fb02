# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads UCI text with libuci, through pyuci. The only module that imports pyuci.

What pyuci 0.10 asks for (pyuci.c): a handle is never freed, so there is one for the process; `with` on a handle takes
one reference too many from it; a string that is not UTF-8 ends the interpreter when it is in a list; sections are a
dict by name, without type, and of two with the same name only the last is in it; no error says what is wrong.

libuci is given a file by an absolute path: then it looks for no staged changes and for no override (file.c,
uci_file_load). The path is that of a file in memory with the bytes that our own parser gets too.
"""

from __future__ import annotations

import functools
import os
import threading
from typing import Any

from agent.errors import ConfigError

Values = dict[str, dict[str, str | tuple[str, ...]]]
"""section -> option -> value; a list is a tuple."""


class LibuciError(ConfigError):
    """libuci is not there, or does not read what our own parser reads."""

    code = "libuci"


_lock = threading.Lock()


@functools.cache
def _pyuci() -> tuple[Any, type[Exception]]:
    """The handle, and what it raises."""
    try:
        import uci
    except ImportError as exc:
        raise LibuciError(f"pyuci does not load: {exc}") from exc
    return uci.Uci(), uci.UciException


def read(raw: bytes) -> Values:
    """The values in a file's bytes; bytes that are not UTF-8 become surrogates. Raises LibuciError."""
    handle, refusal = _pyuci()
    # one character per byte: the syntax is ASCII, other bytes only pass through, and pyuci takes them for UTF-8
    file = os.memfd_create("uci", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(file), "wb") as writer:
            writer.write(raw.decode("latin-1").encode())
        with _lock:
            handle.__init__()  # a new context in the old handle
            try:
                found = handle.get_all(f"/proc/self/fd/{file}")
            finally:
                handle.__exit__()
    except refusal as exc:
        raise LibuciError(f"libuci refuses the file ({type(exc).__name__})") from exc
    finally:
        os.close(file)
    return {
        section: {
            name: _bytes_again(value) if isinstance(value, str) else tuple(map(_bytes_again, value))
            for name, value in options.items()
        }
        for section, options in found.items()
    }


def _bytes_again(text: str) -> str:
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "surrogateescape")
