# SPDX-License-Identifier: GPL-2.0-or-later
"""The UCI text format as libuci reads and writes it (uci: file.c, util.c, list.c). Pure: text in, values out.

A file is commands: `package NAME`, `config TYPE [NAME]`, `option NAME VALUE`, `list NAME VALUE`, separated by line
ends or `;`. A word is built of bare parts, 'single' parts (nothing is special) and "double" parts (a backslash takes
the next character as it is); quoted parts go over line ends. `#` starts a comment wherever a bare part may stand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from agent.errors import ConfigError

_SPACE = " \t\n\v\f\r"
_NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_TYPE = re.compile(r"[\x21-\x7e]+\Z")


class UciSyntaxError(ConfigError):
    """A file that libuci would refuse. `line` counts from 1, `byte` from 0 within it."""

    code = "uci-syntax"

    def __init__(self, detail: str, *, line: int, byte: int, package: str = "", path: str = "") -> None:
        super().__init__(f"Parse error ({detail}) at line {line}, byte {byte}")
        self.detail, self.line, self.byte, self.package, self.path = detail, line, byte, package, path


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A str is an `option`, a tuple a `list`. `lines`: where the value, or each item, stands."""

    name: str
    value: str | tuple[str, ...]
    lines: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section; an anonymous one has the name that libuci generates for it."""

    type: str
    name: str
    anonymous: bool = False
    options: tuple[Option, ...] = ()
    line: int = 0

    def get(self, name: str) -> Option | None:
        """The option of that name."""
        return next((option for option in self.options if option.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A whole file."""

    name: str
    sections: tuple[Section, ...] = ()


def generated_name(number: int, section_type: str) -> str:
    """The id of the `number`th section of a package (from 1), were it anonymous: a djb hash over its type."""
    value = 5381
    for byte in section_type.encode():
        signed = byte - 256 if byte > 127 else byte  # C's char
        value = (value * 33 + signed) & 0xFFFFFFFF
    return f"cfg{number:02x}{value & 0xFFFF:04x}"


@dataclass(slots=True)
class _Draft:
    type: str
    name: str
    anonymous: bool
    line: int
    options: dict[str, Option] = field(default_factory=dict)


@dataclass(slots=True)
class _Word:
    text: str
    line: int


class _Scanner:
    """Hands out words. A logical line is a line and those that its quotes or backslashes join to it; libuci counts
    the byte of an error from the start of the logical line."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.number = 0  # index of the current line
        self.first = 0  # index of the first line of the logical line
        self.at = 0  # index into the current line

    def error(self, detail: str) -> UciSyntaxError:
        before = sum(len(line.encode()) + 1 for line in self.lines[self.first : self.number])
        here = len(self.lines[self.number][: self.at].encode()) + (self.at > len(self.lines[self.number]))
        return UciSyntaxError(detail, line=self.number + 1, byte=before + here)

    def skip_space(self) -> None:
        """To the next word; past the line end, where there is none, as libuci counts it."""
        line = self.lines[self.number]
        while self.at < len(line) and line[self.at] in _SPACE:
            self.at += 1

    def past_space(self) -> None:
        """As `skip_space`, and over the line end: there libuci stands when it complains."""
        self.skip_space()
        if self.at == len(self.lines[self.number]) and self.number + 1 < len(self.lines):
            self.at += 1

    def peek(self) -> str:
        """The next character that is no space, "" at the end of the logical line or at a comment."""
        self.skip_space()
        rest = self.lines[self.number][self.at :]
        return "" if rest.startswith("#") else rest[:1]

    def next_line(self) -> bool:
        """To the next logical line, False after the last."""
        self.number, self.at = self.number + 1, 0
        self.first = self.number
        return self.number < len(self.lines)

    def word(self) -> _Word:
        """The next word; call only where `peek` found one."""
        begun = self.number + 1
        parts: list[str] = []
        while True:
            line = self.lines[self.number]
            if self.at >= len(line) or line[self.at] in _SPACE or line[self.at] in "#;":
                return _Word("".join(parts), begun)
            char = line[self.at]
            self.at += 1
            if char in "'\"":
                parts.append(self._quoted(char))
            elif char == "\\":
                parts.append(self._escaped())
            else:
                parts.append(char)

    def _quoted(self, quote: str) -> str:
        parts: list[str] = []
        while True:
            line = self.lines[self.number]
            if self.at >= len(line):
                parts.append("\n")
                self._join(f"EOF with unterminated {quote}")
                continue
            char = line[self.at]
            self.at += 1
            if char == quote:
                return "".join(parts)
            parts.append(self._escaped() if char == "\\" and quote == '"' else char)

    def _join(self, detail: str) -> None:
        # an empty piece after the last line end is no line
        if self.number + 1 >= len(self.lines) or (self.number + 2 == len(self.lines) and not self.lines[-1]):
            self.at = len(self.lines[self.number]) + (self.number + 1 < len(self.lines))
            raise self.error(detail)
        self.number, self.at = self.number + 1, 0

    def _escaped(self) -> str:
        line = self.lines[self.number]
        if self.at < len(line):
            self.at += 1
            return line[self.at - 1]
        if self.number + 1 < len(self.lines):  # a backslash at the end joins the next line
            self.number, self.at = self.number + 1, 0
        return ""


class _Parser:
    def __init__(self, text: str, package: str) -> None:
        self.scanner = _Scanner(text)
        self.package = package
        self.drafts: list[_Draft] = []
        self.current: _Draft | None = None

    def run(self) -> Package:
        more = True
        while more:
            while self.scanner.peek():
                self._command()
            more = self.scanner.next_line()
        sections = tuple(
            Section(
                type=d.type,
                name=d.name,
                anonymous=d.anonymous,
                options=tuple(d.options.values()),
                line=d.line,
            )
            for d in self.drafts
        )
        return Package(name=self.package, sections=sections)

    def _command(self) -> None:
        scanner = self.scanner
        if scanner.peek() == ";":
            scanner.at += 1
            return
        at = scanner.at
        verb = scanner.word().text
        name = next(
            (full for full in ("package", "config", "option", "list") if verb in (full, full[0])), None
        )
        if name is None or (name == "config" and not self._more()):
            scanner.at = at
            raise scanner.error("invalid command")
        if name in ("option", "list") and self.current is None:
            scanner.at = at
            raise scanner.error("option/list command found before the first section")
        getattr(self, f"_{name}")()
        self._end()

    def _more(self) -> bool:
        return self.scanner.peek() not in ("", ";")

    def _argument(self, *, is_name: bool = False) -> _Word:
        if not self._more():
            raise self.scanner.error("insufficient arguments")
        word = self.scanner.word()
        if is_name and word.text and not _NAME.match(word.text):
            self.scanner.past_space()
            raise self.scanner.error("invalid character in name field")
        return word

    def _end(self) -> None:
        if self._more():
            self.scanner.word()
            self.scanner.past_space()
            raise self.scanner.error("too many arguments")
        if self.scanner.peek() == ";":
            self.scanner.at += 1

    def _package(self) -> None:
        self._argument(is_name=True)

    def _config(self) -> None:
        section_type = self._argument()
        if not _TYPE.match(section_type.text):
            self.scanner.past_space()
            raise self.scanner.error("invalid character in type field")
        name = self._argument(is_name=True).text if self._more() else ""
        same = next((d for d in self.drafts if d.name == name), None) if name else None
        if same is None:
            generated = generated_name(len(self.drafts) + 1, section_type.text)
            self.current = _Draft(section_type.text, name or generated, not name, section_type.line)
            self.drafts.append(self.current)
        elif same.type != section_type.text:
            self.scanner.past_space()
            raise self.scanner.error("section of different type overwrites prior section with same name")
        else:
            self.current = same

    def _option(self) -> None:
        name, value = self._argument(is_name=True).text, self._argument()
        if self.current is not None and value.text:  # libuci passes over an option without a value
            self.current.options[name] = Option(name=name, value=value.text, lines=(value.line,))

    def _list(self) -> None:
        name, value = self._argument(is_name=True).text, self._argument()
        if self.current is None:
            return
        old = self.current.options.get(name)
        items: tuple[str, ...] = ()
        lines: tuple[int, ...] = ()
        if old is not None:
            items = (old.value,) if isinstance(old.value, str) else old.value
            lines = old.lines
        item = Option(name=name, value=(*items, value.text), lines=(*lines, value.line))
        self.current.options[name] = item


def parse(text: str, *, package: str, path: str = "") -> Package:
    """Reads a file's text. Raises UciSyntaxError where libuci would, at the line it would name."""
    try:
        return _Parser(text, package).run()
    except UciSyntaxError as exc:
        exc.package, exc.path = package, path
        raise


def quote(value: str) -> str:
    """`value` in single quotes, as libuci writes it."""
    return "'" + value.replace("'", "'\\''") + "'"


def format_file(package: Package) -> str:
    """What `uci commit` writes."""
    parts: list[str] = []
    for section in package.sections:
        name = "" if section.anonymous else f" {quote(section.name)}"
        parts.append(f"\nconfig {section.type}{name}\n")
        for option in section.options:
            if isinstance(option.value, str):
                parts.append(f"\toption {option.name} {quote(option.value)}\n")
            else:
                parts += [f"\tlist {option.name} {quote(item)}\n" for item in option.value]
    return "".join(parts) + "\n"


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
