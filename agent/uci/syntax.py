# SPDX-License-Identifier: GPL-2.0-or-later
"""The UCI text format as libuci reads and writes it (uci: file.c, util.c, list.c). Pure: text in, values out.

A file is commands: `package NAME`, `config TYPE [NAME]`, `option NAME VALUE`, `list NAME VALUE`, separated by line
ends or `;`. A word is built of bare parts, 'single' parts (nothing is special) and "double" parts (a backslash takes
the next character as it is); quoted parts go over line ends. `#` starts a comment wherever a bare part may stand.
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
_BARE = re.compile(rb"[^ \t\n\v\f\r\0#;'\"\\]*")
_IN_SINGLE = re.compile(rb"[^'\0]*")
_IN_DOUBLE = re.compile(rb'[^"\\\0]*')
_VERB = re.compile(rb"[ \t]*([^ \t\0]*)")
_COMMAND = re.compile(rb"[ \t]*(?:config|option|list)[ \t]+['\"]?[A-Za-z0-9_]+")
_HEAD = re.compile(rb"[ \t]*(config|option|list)[ \t]+['\"]?([A-Za-z0-9_-]+)")
_ASSIGNMENTS = ("option", "o", "list", "l")
_UNTERMINATED = "EOF with unterminated"
_FIRST_SIZE = 32  # bytes; libuci: file.c, LINEBUF
_NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_PACKAGE = re.compile(r"[A-Za-z0-9_-]+\Z")
_TYPE = re.compile(r"[\x21-\x7e]+\Z")


class UciSyntaxError(ConfigError):
    """A file that libuci would refuse.

    `line` counts from 1; `byte` from 0, in the logical line that ends there. The message has libuci's own line number,
    which is one less in a last line that has no line end.
    """

    code = "uci-syntax"

    def __init__(self, detail: str, *, line: int, byte: int, reported_line: int | None = None) -> None:
        shown = line if reported_line is None else reported_line
        super().__init__(f"Parse error ({detail}) at line {shown}, byte {byte}")
        self.detail, self.line, self.byte = detail, line, byte
        self.package = self.path = self.text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A str is an `option`, a tuple a `list`. `lines`: where the value, or each item, stands.

    `overwritten`: where values stood that a later `option` of the name took the place of.
    """

    name: str
    value: str | tuple[str, ...]
    lines: tuple[int, ...] = ()
    overwritten: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section; an anonymous one has the name that libuci generates for it.

    `repeats`: the lines of further `config` commands of its name, whose options libuci merges into it.
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
    """A whole file. `swallowed`: lines of quotes that go over a line which looks like a command."""

    name: str
    sections: tuple[Section, ...] = ()
    swallowed: tuple[int, ...] = ()


def generated_name(number: int, section_type: str) -> str:
    """The id of the `number`th section of a package (from 1), were it anonymous: a djb hash over its type."""
    value = 5381
    for byte in section_type.encode():
        signed = byte - 256 if byte > 127 else byte  # C's char
        value = (value * 33 + signed) & 0xFFFFFFFF
    return f"cfg{number:02x}{value & 0xFFFF:04x}"


@dataclass(slots=True)
class _Values:
    """An option in the making."""

    values: list[str]
    lines: list[int]
    is_list: bool
    overwritten: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Draft:
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
    """The logical line being read: a line and those that its quotes and backslashes join to it.

    libuci reads words in place: they are unquoted to the left, and a zero byte is put behind each. What it does with
    a `;` next to a bare word, or where it sees an error, follows from that, so we keep a buffer of the same kind. It
    grows as libuci's does (uci_getln), since a zero byte in the file costs what was read with it at once.
    """

    def __init__(self, data: bytes, *, line: int = 0) -> None:
        self._data = data
        self._next = 0  # in `data`
        self._size = _FIRST_SIZE  # of libuci's buffer
        self._bytes = bytearray(b"\0")
        self._filled = 0
        self._at = 0
        self._ended = False
        self._line_ended = True
        self.line = line  # of what was read last, as people count
        self.begun = line  # where the logical line begins
        self.quote = line  # where the last quote was opened
        self.swallowed: list[int] = []  # of the logical line: see Package
        self._complete_lines = 0  # as libuci counts: a last line without a line end is none

    def error(self, detail: str) -> UciSyntaxError:
        return UciSyntaxError(detail, line=self.line, byte=self._at, reported_line=self._complete_lines)

    def next_line(self) -> bool:
        """Begins the next logical line, False after the last one."""
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
        # uci_getln: fgets into what is left of the buffer, doubled until the line ends; strlen then finds a zero byte of
        # the file, and what fgets read behind it is lost
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
        """As fgets: to the end of the line, `size` bytes at most."""
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
        """What follows in the line."""
        return self.text(self._at)

    def verb(self) -> str:
        """The next command word, "" at the end of the line; it is neither unquoted nor passed yet."""
        found = _VERB.match(self._bytes, self._at)
        return found[1].decode("utf-8", "surrogateescape") if found is not None else ""

    def pass_verb(self, verb: str, detail: str) -> None:
        """Moves past the verb and one blank. Raises UciSyntaxError(detail) if the file ends there."""
        after = self._bytes.index(verb.encode("utf-8", "surrogateescape"), self._at) + len(verb) + 1
        if after > self._filled:
            raise self.error(detail)
        self._at = after

    def word(self) -> int:
        """Unquotes the next word and returns where it begins. If there is none, the word there is empty."""
        self._skip_space()
        start = self._at
        # a `;` before any word ends the command: the zero byte put there makes the word empty
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
                # A quote may span lines (libuci, file.c), so that one which is never closed swallows commands:
                # where that seems so is remembered for the message.
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
        """Moves one byte of any kind and the plain bytes after it to `target`; returns the place behind them."""
        found = run.match(self._bytes, self._at + 1)
        end = found.end() if found is not None else self._at + 1
        del found  # it would keep the buffer from growing
        size = end - self._at
        self._bytes[target : target + size] = self._bytes[self._at : end]
        self._at = end
        return target + size

    def _escaped(self) -> bool:
        """Skips a backslash; False at the end of a line: the next line then continues this one."""
        self._at += 1
        if self._here() not in b"\0\n" and self._bytes[self._at : self._at + 3] != b"\r\n\0":
            return True
        self._read(self._at)
        return False


class _Parser:
    _refuses_swallowed = False  # libuci takes a quote that goes over a line which looks like a command

    def __init__(self, text: str, package: str) -> None:
        self._buffer = _Buffer(text.encode("utf-8", "surrogateescape"))
        self._package_name = package
        self._drafts: list[_Draft] = []
        self._named: dict[str, _Draft] = {}
        self._current: _Draft | None = None
        self._swallowed: list[int] = []
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
                if value:  # libuci passes over an option without a value, and keeps what was there
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
        """libuci checks the name, and then uses the file's name anyway."""
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
        # two `config` lines of one name are one section to libuci, if their types agree
        known = self._named.get(name) if name else None
        if known is None:
            generated = generated_name(len(self._drafts) + 1, section_type)
            draft = _Draft(section_type, name or generated, not name, line)
            self._drafts.append(draft)
            self._named.setdefault(draft.name, draft)  # a generated name can be that of a section before it
            known = draft
        elif known.type != section_type:
            raise self._buffer.error("section of different type overwrites prior section with same name")
        else:
            known.repeats.append(line)
        self._current = known

    def _assignment(self, verb: str) -> tuple[_Draft, str, str, int]:
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
    """Reads a file's text. Raises UciSyntaxError where libuci would."""
    try:
        return _Parser(text, package).run()
    except UciSyntaxError as exc:
        exc.package, exc.path, exc.text = package, path, text
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One of the mistakes of a file that libuci refuses. `detail` is libuci's word for it.

    `line`: where it began; of a quote that is never closed where that was opened. `head`: the command there with its first
    word. `word`: the word at fault. `other`: of a section whose name is taken the type and line of the first one.
    """

    detail: str
    line: int
    head: str = ""
    word: str = ""
    other: tuple[str, int] = ("", 0)


class _Recovering(_Parser):
    """Continues after a mistake, where libuci gives up."""

    # two quotes that lack their other half close each other, and hide all that is between them
    _refuses_swallowed = True

    def faults(self, text: str) -> Iterator[Fault]:
        data = text.encode("utf-8", "surrogateescape")
        lines = data.split(b"\n")
        line = 0  # those that are passed
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
        # people have to be shown where a quote was opened; libuci tells the line at which it gave up
        opened = buffer.swallowed[0] if buffer.swallowed else 0
        if not opened and detail.startswith(_UNTERMINATED):
            opened = buffer.quote
        head = _HEAD.match(lines[(opened or buffer.begun) - 1])
        found = self._named.get(self._word)
        if self._current is None or self._verb not in _ASSIGNMENTS:
            # what follows belongs to a section that could not be read
            self._current = _Draft(type="", name="", anonymous=True, line=0)
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
    """The unquoted word of each line of a delta file; lines that hold anything else are passed over (uci: delta.c)."""
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
    """What `uci commit` writes."""
    parts: list[str] = []
    for section in package.sections:
        name = "" if section.anonymous else f" {quote(section.name)}"
        parts.append(f"\nconfig {_escape(section.type)}{name}\n")
        for option in section.options:
            if isinstance(option.value, str):
                parts.append(f"\toption {option.name} {quote(option.value)}\n")
            else:
                parts += [f"\tlist {option.name} {quote(item)}\n" for item in option.value]
    return "".join(parts) + "\n"


def section_text(section: Section) -> str:
    """One section as a file has it."""
    return format_file(Package(name="", sections=(section,))).strip("\n") + "\n"


def format_export(package: Package) -> str:
    """What `uci export PACKAGE` prints."""
    return f"package {package.name}\n{format_file(package)}"


def format_show(package: Package) -> str:
    """What `uci -X show PACKAGE` prints."""
    lines: list[str] = []
    for section in package.sections:
        prefix = f"{package.name}.{section.name}"
        lines.append(f"{prefix}={section.type}")
        for option in section.options:
            items = (option.value,) if isinstance(option.value, str) else option.value
            lines.append(f"{prefix}.{option.name}={' '.join(quote(item) for item in items)}")
    return "".join(line + "\n" for line in lines)
