# SPDX-License-Identifier: GPL-2.0-or-later
"""The UCI text format as libuci reads and writes it (uci: file.c, util.c, list.c). Pure: text in, values out.

A file consists of commands, separated by line ends or `;`: `package NAME`, `config TYPE [NAME]`, `option NAME VALUE`,
`list NAME VALUE`. A word consists of bare parts, 'single' quoted parts (nothing is special) and "double" quoted parts
(a backslash escapes the next character). Quoted parts may span lines. `#` starts a comment anywhere in a bare part.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.errors import ConfigError

_SPACE = b" \t\n\v\f\r"
_SPACE_OR_END = _SPACE + b"\0"
_WORD_ENDS = b"\0#;"
_QUOTES = b"'\""
_SINGLE, _BACKSLASH, _SEMICOLON, _HASH = b"'\\;#"
_BARE = re.compile(rb"[^ \t\n\v\f\r\0#;'\"\\]*")  # a word up to what ends or quotes it
_IN_SINGLE = re.compile(rb"[^'\0]*")  # nothing is special in single quotes
_IN_DOUBLE = re.compile(rb'[^"\\\0]*')  # only a backslash is special in double quotes
_VERB = re.compile(rb"[ \t]*([^ \t\0]*)")
# a line that looks like a command: inside a value it tells of a quote that was not closed
_COMMAND = re.compile(rb"[ \t]*(?:config|option|list)[ \t]+['\"]?[A-Za-z0-9_]+")
_HEAD = re.compile(rb"[ \t]*(config|option|list)[ \t]+['\"]?([A-Za-z0-9_-]+)")
_ASSIGNMENTS = ("option", "o", "list", "l")  # libuci takes the first letter too
_UNTERMINATED = "EOF with unterminated"
_FIRST_SIZE = 32  # bytes; libuci: file.c, LINEBUF
_NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_PACKAGE = re.compile(r"[A-Za-z0-9_-]+\Z")
_TYPE = re.compile(r"[\x21-\x7e]+\Z")


class UciSyntaxError(ConfigError):
    """A file that libuci would refuse.

    `line` counts from 1; `byte` counts from 0, in the logical line that ends there. The message has libuci's line
    number, which is one less for a last line without a line end.
    """

    code = "uci-syntax"

    def __init__(self, detail: str, *, line: int, byte: int, reported_line: int | None = None) -> None:
        shown = line if reported_line is None else reported_line
        super().__init__(f"Parse error ({detail}) at line {shown}, byte {byte}")
        self.detail, self.line, self.byte = detail, line, byte
        self.package = self.path = self.text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A str is an `option`, a tuple is a `list`. `lines`: the line of the value, or of each item.

    `overwritten`: the lines of values that a later `option` of the same name replaced.
    """

    name: str
    value: str | tuple[str, ...]
    lines: tuple[int, ...] = ()
    overwritten: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section; an anonymous one has the name that libuci generates.

    `repeats`: lines of further `config` commands with its name, whose options libuci merges into it.
    """

    type: str
    name: str
    anonymous: bool = False
    options: tuple[Option, ...] = ()
    line: int = 0
    repeats: tuple[int, ...] = ()

    def get(self, name: str) -> Option | None:
        """The option of that name."""
        return next((option for option in self.options if option.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A whole file. `swallowed`: lines with quotes that span a line which looks like a command."""

    name: str
    sections: tuple[Section, ...] = ()
    swallowed: tuple[int, ...] = ()


def generated_name(number: int, section_type: str) -> str:
    """libuci's generated name of an anonymous section, the `number`th of its package (from 1): a djb hash of its type."""
    value = 5381
    for byte in section_type.encode():
        signed = byte - 256 if byte > 127 else byte  # C's signed char
        value = (value * 33 + signed) & 0xFFFFFFFF
    return f"cfg{number:02x}{value & 0xFFFF:04x}"


@dataclass(slots=True)
class _Values:
    """An option while it is being read."""

    values: list[str]
    lines: list[int]
    is_list: bool
    overwritten: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _SectionBuilder:
    type: str
    name: str
    anonymous: bool
    line: int
    options: dict[str, _Values] = field(default_factory=dict)
    repeats: list[int] = field(default_factory=list)

    def section(self) -> Section:
        options = tuple(
            Option(
                name=name,
                value=tuple(o.values) if o.is_list else o.values[0],
                lines=tuple(o.lines),
                overwritten=tuple(o.overwritten),
            )
            for name, o in self.options.items()
        )
        return Section(
            type=self.type,
            name=self.name,
            anonymous=self.anonymous,
            options=options,
            line=self.line,
            repeats=tuple(self.repeats),
        )


class _Buffer:
    """The logical line being read: a line, plus the lines that quotes and backslashes join to it.

    libuci reads words in place: it moves the unquoted bytes to the left and puts a zero byte after each word. Its
    treatment of a `;` next to a bare word, and the positions of errors, follow from that, so we use the same kind of
    buffer. It also grows like libuci's (uci_getln), because a zero byte in the file discards the rest of that read.
    """

    def __init__(self, data: bytes, *, line: int = 0) -> None:
        self._data = data
        self._next = 0  # position in `data`
        self._size = _FIRST_SIZE  # size of libuci's buffer
        self._bytes = bytearray(b"\0")
        self._filled = 0
        self._at = 0
        self._ended = False
        self._line_ended = True
        self.line = line  # of the last line read, counted from 1
        self.begun = line  # first line of the logical line
        self.quote = line  # line of the last opening quote
        self.swallowed: list[int] = []  # for the logical line: see Package
        self._complete_lines = 0  # libuci's count: a last line without a line end does not count

    def error(self, detail: str) -> UciSyntaxError:
        return UciSyntaxError(detail, line=self.line, byte=self._at, reported_line=self._complete_lines)

    def next_line(self) -> bool:
        """Begins the next logical line; False after the last one."""
        if self._ended:
            return False
        self._at = 0
        self.swallowed = []
        self.begun = self.line + 1
        self._read(0)
        self._skip_space()
        return True

    def _read(self, offset: int) -> None:
        self._bytes[offset:] = b"\0"
        # uci_getln: fgets into the rest of the buffer, which is doubled until the line ends; strlen then stops at a
        # zero byte of the file, and whatever fgets read after it is lost
        if offset >= self._size - 1:
            self._size *= 2
        while text := self._piece(self._size - len(self._bytes)).partition(b"\0")[0]:
            self._bytes[-1:] = text + b"\0"
            self._filled = len(self._bytes) - 1
            if text.endswith(b"\n"):
                self._complete_lines += 1
                return
            self._size *= 2

    def _piece(self, size: int) -> bytes:
        """Like fgets: up to the end of the line, at most `size` bytes."""
        limit = self._next + max(size, 0)
        stop = self._data.find(b"\n", self._next, limit) + 1 or min(limit, len(self._data))
        piece = self._data[self._next : stop]
        self._next = stop
        self._ended = stop < limit and not piece.endswith(b"\n")
        if piece:
            self.line += self._line_ended
            self._line_ended = piece.endswith(b"\n")
        return piece

    def _here(self) -> int:
        return self._bytes[self._at] if self._at < len(self._bytes) else 0

    def _skip_space(self) -> None:
        while self._here() in _SPACE:
            self._at += 1

    def text(self, start: int) -> str:
        """The word that begins at `start`."""
        return self._bytes[start : self._bytes.index(0, start)].decode("utf-8", "surrogateescape")

    def rest(self) -> str:
        """The rest of the line."""
        return self.text(self._at)

    def verb(self) -> str:
        """The next command word, "" at the end of the line. It is not unquoted, and the position does not change."""
        found = _VERB.match(self._bytes, self._at)
        return found[1].decode("utf-8", "surrogateescape") if found is not None else ""

    def pass_verb(self, verb: str, detail: str) -> None:
        """Moves past the verb and one blank. Raises UciSyntaxError(detail) if the file ends there."""
        after = self._bytes.index(verb.encode("utf-8", "surrogateescape"), self._at) + len(verb) + 1
        if after > self._filled:
            raise self.error(detail)
        self._at = after

    def word(self) -> int:
        """Unquotes the next word and returns its start. Without another word, the word at that position is empty."""
        self._skip_space()
        start = self._at
        # a `;` before any word ends the command: the zero byte written there makes the word empty
        if self._here() == _SEMICOLON:
            self._bytes[self._at] = 0
            self._at += 1
        else:
            target = start
            while True:
                here = self._here()
                if here == _HASH:
                    self._bytes[self._at] = 0
                if here in _WORD_ENDS:
                    break
                if here in _QUOTES:
                    self._at += 1
                    target = self._quoted(here, target)
                elif here != _BACKSLASH or self._escaped():
                    target = self._move(_BARE, target)
                if self._here() in _SPACE_OR_END:
                    break
            if self._here() not in (0, _SEMICOLON):
                self._at += 1
            self._bytes[target] = 0
        return start

    def _quoted(self, quote: int, target: int) -> int:
        self.quote = opened = self.line
        while self._here() != quote:
            if not self._here():
                # A quote may span lines (libuci, file.c), so an unclosed quote swallows commands: remember where that
                # seems to happen, for the message.
                self._read(self._at)
                if _COMMAND.match(self._bytes, self._at) and opened not in self.swallowed:
                    self.swallowed.append(opened)
                if not self._here():
                    raise self.error(f"EOF with unterminated {chr(quote)}")
            elif quote == _SINGLE:
                target = self._move(_IN_SINGLE, target)
            elif self._here() != _BACKSLASH or self._escaped():
                target = self._move(_IN_DOUBLE, target)
        self._at += 1
        return target

    def _move(self, run: re.Pattern[bytes], target: int) -> int:
        """Moves any one byte and the plain bytes after it to `target`; returns the position after them."""
        found = run.match(self._bytes, self._at + 1)
        end = found.end() if found is not None else self._at + 1
        del found  # it would keep the buffer from growing
        size = end - self._at
        self._bytes[target : target + size] = self._bytes[self._at : end]
        self._at = end
        return target + size

    def _escaped(self) -> bool:
        """Skips a backslash. False at the end of a line: then the next line continues this one."""
        self._at += 1
        if self._here() not in b"\0\n" and self._bytes[self._at : self._at + 3] != b"\r\n\0":
            return True
        self._read(self._at)
        return False


class _Parser:
    _refuses_swallowed = False  # libuci accepts a quote that spans a line which looks like a command

    def __init__(self, text: str, package: str) -> None:
        self._buffer = _Buffer(text.encode("utf-8", "surrogateescape"))
        self._package_name = package
        self._drafts: list[_SectionBuilder] = []  # in the order of the file
        self._named: dict[str, _SectionBuilder] = {}  # by name; libuci continues the first one of a name
        self._current: _SectionBuilder | None = None
        self._swallowed: list[int] = []  # lines, see Package
        self._verb = self._word = ""  # of the command being read

    def run(self) -> Package:
        while self._buffer.next_line():
            while (verb := self._buffer.verb()) and not verb.startswith("#"):
                self._command(verb)
            if self._buffer.swallowed and self._refuses_swallowed:
                raise self._buffer.error(_UNTERMINATED)
            self._swallowed += self._buffer.swallowed
        return Package(
            name=self._package_name,
            sections=tuple(draft.section() for draft in self._drafts),
            swallowed=tuple(self._swallowed),
        )

    def _command(self, verb: str) -> None:
        self._verb, self._word = verb, ""
        match verb:
            case "package" | "p":
                self._package(verb)
            case "config" | "c":
                self._config(verb)
            case "option" | "o":
                section, name, value, line = self._assignment(verb)
                if value:  # libuci ignores an option without a value and keeps the earlier value
                    before = section.options.get(name)
                    lost = [*before.overwritten, *before.lines] if before is not None else []
                    section.options[name] = _Values([value], [line], is_list=False, overwritten=lost)
            case "list" | "l":
                self._list(verb)
            case _:
                raise self._buffer.error("invalid command")

    def _argument(self, *, required: bool = False, valid: re.Pattern[str] | None = None) -> int:
        start = self._buffer.word()
        text = self._word = self._buffer.text(start)
        if required and not text:
            raise self._buffer.error("insufficient arguments")
        if text and valid is not None and not valid.match(text):
            raise self._buffer.error(f"invalid character in {'type' if valid is _TYPE else 'name'} field")
        return start

    def _end(self) -> None:
        if self._buffer.text(self._buffer.word()):
            raise self._buffer.error("too many arguments")

    def _package(self, verb: str) -> None:
        """Checks the name like libuci, which then uses the file's name anyway."""
        self._buffer.pass_verb(verb, "package without name")
        self._argument(required=True, valid=_PACKAGE)
        self._end()

    def _config(self, verb: str) -> None:
        self._buffer.pass_verb(verb, "config without name")
        line = self._buffer.line
        type_at = self._argument(required=True, valid=_TYPE)
        name_at = self._argument(valid=_NAME)
        self._end()
        section_type, name = self._buffer.text(type_at), self._buffer.text(name_at)
        # to libuci, two `config` lines with the same name are one section if their types agree
        known = self._named.get(name) if name else None
        if known is None:
            generated = generated_name(len(self._drafts) + 1, section_type)
            draft = _SectionBuilder(section_type, name or generated, not name, line)
            self._drafts.append(draft)
            # a generated name may equal the name of an earlier section
            self._named.setdefault(draft.name, draft)
            known = draft
        elif known.type != section_type:
            raise self._buffer.error("section of different type overwrites prior section with same name")
        else:
            known.repeats.append(line)
        self._current = known

    def _assignment(self, verb: str) -> tuple[_SectionBuilder, str, str, int]:
        if self._current is None:
            raise self._buffer.error("option/list command found before the first section")
        self._buffer.pass_verb(verb, "option without name")
        name_at = self._argument(required=True, valid=_NAME)
        line = self._buffer.line
        value_at = self._argument()
        self._end()
        return self._current, self._buffer.text(name_at), self._buffer.text(value_at), line

    def _list(self, verb: str) -> None:
        section, name, value, line = self._assignment(verb)
        values = section.options.setdefault(name, _Values([], [], is_list=True))
        values.values.append(value)
        values.lines.append(line)
        values.is_list = True


def parse(text: str, *, package: str, path: str = "") -> Package:
    """Parses a file's text. Raises UciSyntaxError wherever libuci would refuse it."""
    try:
        return _Parser(text, package).run()
    except UciSyntaxError as exc:
        exc.package, exc.path, exc.text = package, path, text
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One mistake of a file that libuci refuses. `detail` is libuci's message.

    `line`: where it begins, for an unclosed quote the line of the opening quote. `head`: the command there with its
    first word. `word`: the faulty word. `other`: if the section's name is taken, type and line of the first section.
    """

    detail: str
    line: int
    head: str = ""
    word: str = ""
    other: tuple[str, int] = ("", 0)


class _Recovering(_Parser):
    """Continues after a mistake, where libuci stops."""

    # two unclosed quotes close each other and hide everything between them
    _refuses_swallowed = True

    def faults(self, text: str) -> Iterator[Fault]:
        data = text.encode("utf-8", "surrogateescape")
        lines = data.split(b"\n")
        line = 0  # number of lines already processed
        while line < len(lines):
            rest = b"\n".join(lines[line:])
            self._buffer = _Buffer(rest, line=line)
            try:
                self.run()
                return
            except UciSyntaxError as exc:
                fault, line = self._fault(exc, lines)
                yield fault

    def _fault(self, exc: UciSyntaxError, lines: list[bytes]) -> tuple[Fault, int]:
        """The mistake, and the line after which reading continues."""
        buffer, detail = self._buffer, exc.detail
        # show where a quote was opened; libuci reports the line at which it gave up
        opened = buffer.swallowed[0] if buffer.swallowed else 0
        if not opened and detail.startswith(_UNTERMINATED):
            opened = buffer.quote
        head = _HEAD.match(lines[(opened or buffer.begun) - 1])
        found = self._named.get(self._word)
        if self._current is None or self._verb not in _ASSIGNMENTS:
            # further options belong to a section that could not be read
            self._current = _SectionBuilder(type="", name="", anonymous=True, line=0)
        fault = Fault(
            detail=_UNTERMINATED if opened else detail,
            line=opened or buffer.begun,
            head=" ".join(part.decode() for part in head.groups()) if head is not None else self._verb,
            word=self._word,
            other=(found.type, found.line) if found is not None else ("", 0),
        )
        return fault, opened or max(exc.line, buffer.begun)


def faults(text: str, *, package: str, most: int) -> tuple[Fault, ...]:
    """The first `most` mistakes of a file that `parse` refuses."""
    return tuple(itertools.islice(_Recovering("", package).faults(text), most))


def arguments(text: str) -> Iterator[str]:
    """The unquoted word of each line of a delta file; lines with anything else are skipped (uci: delta.c)."""
    buffer = _Buffer(text.encode("utf-8", "surrogateescape"))
    while buffer.next_line():
        try:
            word = buffer.text(buffer.word())
        except UciSyntaxError:
            continue
        if word and not buffer.rest():
            yield word


def quote(value: str) -> str:
    """`value` in single quotes, as libuci writes it."""
    return f"'{_escape(value)}'"


def _escape(text: str) -> str:
    return text.replace("'", "'\\''")


def format_file(package: Package) -> str:
    """The output of `uci commit`."""
    parts: list[str] = []
    for section in package.sections:
        name = "" if section.anonymous else f" {quote(section.name)}"
        # empty lines as `uci` writes them, so that a file that it wrote does not change
        parts.append(f"\nconfig {_escape(section.type)}{name}\n")
        for option in section.options:
            if isinstance(option.value, str):
                parts.append(f"\toption {option.name} {quote(option.value)}\n")
            else:
                parts += [f"\tlist {option.name} {quote(item)}\n" for item in option.value]
    return "".join(parts) + "\n"


def section_text(section: Section) -> str:
    """One section, as in a file."""
    return format_file(Package(name="", sections=(section,))).strip("\n") + "\n"


def format_export(package: Package) -> str:
    """The output of `uci export PACKAGE`."""
    return f"package {package.name}\n{format_file(package)}"


def format_show(package: Package) -> str:
    """The output of `uci -X show PACKAGE`."""
    lines: list[str] = []
    for section in package.sections:
        prefix = f"{package.name}.{section.name}"
        lines.append(f"{prefix}={section.type}")
        for option in section.options:
            items = (option.value,) if isinstance(option.value, str) else option.value
            lines.append(f"{prefix}.{option.name}={' '.join(quote(item) for item in items)}")
    return "".join(line + "\n" for line in lines)
