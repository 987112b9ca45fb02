# SPDX-License-Identifier: GPL-2.0-or-later
"""Minifies a page like LuCI's build: the rules of Crockford's jsmin (crockford.com/jsmin), with all its flaws.

jsmin knows no grammar. Control characters become blanks, also in strings. A slash begins a regular expression after
certain characters, otherwise it is a division. A template is a string up to the next backquote. White space is
removed unless it separates two words, or unless a line may end there and another begin.
"""

from __future__ import annotations

import re

_QUOTES = "'\"`"
_SIGNS = "+-*/"
_REGEX_AFTER = set("(,=:[!&|?+-~*/{};")
_LINE_MAY_END_AFTER = set("}])+-\"'`")
_LINE_MAY_BEGIN_WITH = set("{[(+-!~")
_BLANKS = re.compile(r"(?:[\x00-\x20]|//[^\n]*\n?|/\*.*?\*/)+", re.DOTALL)


def minified(text: str) -> str:
    """The minified text. Raises ValueError where jsmin gives up."""
    text = re.sub(r"[\x00-\x09\x0b-\x1f]", " ", text.replace("\r", "\n"))  # also in strings
    out: list[str] = []
    before = "\n"  # the previous character, which jsmin considers
    position = 0
    while position < len(text):
        blank = _BLANKS.match(text, position)
        if blank:
            position = blank.end()
            following = text[position : position + 1]
            kept = _kept(blank[0], before, following)
            out.append(kept)
            before = kept or _pending(blank[0], before) or before
            continue
        character = text[position]
        if character in _QUOTES or (character == "/" and before in _REGEX_AFTER):
            end = _end_of_string(text, position) if character in _QUOTES else _end_of_regex(text, position)
            if character == "/" and before in "/*":
                out.append(" ")
            out.append(text[position:end])
            position, before = end, character
        else:
            out.append(character)
            position, before = position + 1, character
    return "".join(out)


def _is_word(character: str) -> bool:
    return bool(character) and (
        (character.isascii() and character.isalnum()) or character in "_$\\" or character > "~"
    )


def _pending(blank: str, before: str) -> str:
    """White space that jsmin still holds when it reads the next character, even if it then drops it."""
    if _has_line_end(blank):
        return "\n" if _is_word(before) or before in _LINE_MAY_END_AFTER else ""
    return " " if _is_word(before) else ""


def _kept(blank: str, before: str, following: str) -> str:
    held = _pending(blank, before)
    if not held and before in _SIGNS and following and following in _SIGNS:
        # a slash would begin a regular expression here
        return "" if following == "/" else blank[-1].replace("/", " ")
    if held == "\n":
        return held if _is_word(following) or following in _LINE_MAY_BEGIN_WITH else ""
    return held if _is_word(following) else ""


def _has_line_end(blank: str) -> bool:
    """Whether a line ends here; to jsmin a comment over several lines is a single blank."""
    return "\n" in re.sub(r"/\*.*?\*/", " ", blank, flags=re.DOTALL)


def _end_of_string(text: str, begin: int) -> int:
    found = re.compile(rf"{text[begin]}(?:\\.|[^\\{text[begin]}])*{text[begin]}", re.DOTALL).match(
        text, begin
    )
    if not found:
        raise ValueError("a string does not end")
    return found.end()


def _end_of_regex(text: str, begin: int) -> int:
    found = re.compile(r"/(?:\[(?:\\.|[^\]\\])*\]|\\.|[^\[/\\])*/", re.DOTALL).match(text, begin)
    if not found or text[found.end() : found.end() + 1] in {"/", "*"}:
        raise ValueError("a regular expression does not end")
    return found.end()
