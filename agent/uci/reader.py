# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the options of one section as typed values, and collects their mistakes.

The decoders (`decode_container`, `decode_network`, `decode_agent`) ask a `SectionReader` for values. An option that
the schema or a parser refuses reads as unset, its mistake is noted once, and reading continues, so that all mistakes
of a section are found in one run.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from agent.model.identity import Key
from agent.model.issues import Code, Issue, Severity, shortened
from agent.model.quantities import QuantityError, parse_bool, split_words
from agent.model.resources import UnreadFile
from agent.model.secrets import eraser, secrets_in
from agent.schema.validate import is_list, is_secret, validate
from agent.uci.syntax import Section

T = TypeVar("T")
_ARRAY = re.compile(r"\[\S.*\]")  # as in compose files; the program `[` would have a space after it
_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # the form in which the stores return such bytes


def _in_words(lines: tuple[int, ...]) -> str:
    """`lines 3 and 9`."""
    *first, last = map(str, dict.fromkeys(lines))
    return f"lines {', '.join(first)} and {last}" if first else f"line {last}"


class SectionReader:
    """One section with its place in the files, and the issues found so far."""

    # slots, because the readers of all sections exist at the same time and the memory would not be returned
    __slots__ = (
        "_erasers", "_options", "_refused", "away", "file", "issues", "kind", "name", "package", "section",
    )  # fmt: skip

    def __init__(self, section: Section, *, package: str, file: str) -> None:
        self.section = section
        self.kind = section.type
        self.package = package
        self.file = file
        self.issues: list[Issue] = []
        self.away: list[UnreadFile] = []  # files that options name and that cannot be read now
        self._options = {option.name: option for option in section.options}
        self._refused: set[tuple[str, int | None]] = set()  # (option, index) that have a mistake already
        self._erasers: dict[str, Callable[[str], str]] = {}  # by option
        self.name = self._name()
        self._validate()

    @property
    def key(self) -> str:
        """`kind:section`, the resource's key everywhere in the agent."""
        return Key(self.kind, self.name)

    @property
    def failed(self) -> bool:
        return any(issue.severity == "error" for issue in self.issues)

    @property
    def docker_name(self) -> str:
        """`option name`, or the section's name."""
        return self.text("name") or self.name

    def _name(self) -> str:
        """The name that identifies the section: for an anonymous section its `option name`."""
        option = self._options.get("name")
        if self.section.anonymous and option is not None and isinstance(option.value, str) and option.value:
            return option.value
        return self.section.name

    def _validate(self) -> None:
        for option in self._options.values():
            # neither JSON nor the engine can transport other bytes
            single = isinstance(option.value, str)
            for index, text in enumerate((option.value,) if isinstance(option.value, str) else option.value):
                if _NOT_UTF8.search(text):
                    place = None if single and not is_list(self.kind, option.name) else index
                    self.report(
                        "is not UTF-8",
                        option=option.name,
                        index=place,
                        expected="text in UTF-8",
                        code="encoding",
                    )
            if option.overwritten:
                lines = _in_words((*option.overwritten, *option.lines))
                many = is_list(self.kind, option.name)
                self.warn(
                    f"is set in {lines}: only the last value counts",
                    option=option.name,
                    expected=f"one `list {option.name}` line for each value" if many else "one line",
                    code="repeated",
                )
        # libuci silently merges sections with the same name, which surprises people who copied a section
        if self.section.repeats:
            lines = _in_words((self.section.line, *self.section.repeats))
            self.warn(
                f"the section is written in {lines}: they are one section, and of equal options the last one counts",
                expected="one `config` line for it, or another name",
                code="repeated",
            )
        for mistake in validate(self.kind, {name: option.value for name, option in self._options.items()}):
            self.report(
                mistake.wrong,
                option=mistake.option,
                index=mistake.index,
                expected=mistake.expected,
                severity=mistake.severity,
                code=mistake.code,
            )

    def report(
        self,
        wrong: str,
        *,
        option: str = "",
        index: int | None = None,
        expected: str = "",
        severity: Severity = "error",
        code: Code | None = None,
    ) -> None:
        """Notes a mistake; an option that was already refused is not reported again."""
        place = (option, index)
        # schema and parser often refuse the same value: the first message is sufficient
        if severity == "error" and option:
            if place in self._refused:
                return
            self._refused.add(place)
        # A quoted part of a value no longer shows that it is a secret. Created once per option: a list may have
        # thousands of entries with mistakes.
        if option not in self._erasers:
            given = self._options[option].value if option in self._options else ()
            self._erasers[option] = eraser(secrets_in((given,) if isinstance(given, str) else given))
        erase = self._erasers[option]
        self.issues.append(
            Issue(
                severity=severity,
                code=code or ("invalid-value" if severity == "error" else "questionable"),
                package=self.package,
                section=self.name,
                option=option,
                index=index,
                file=self.file,
                line=self._line(option, index),
                message=shortened(erase(wrong)),
                expected=erase(expected),
            )
        )

    def warn(
        self,
        wrong: str,
        *,
        option: str = "",
        index: int | None = None,
        expected: str = "",
        code: Code = "questionable",
    ) -> None:
        self.report(wrong, option=option, index=index, expected=expected, severity="warning", code=code)

    def warn_of_loopback(self, option: str) -> None:
        """Warns of name servers with a loopback address: in a container, 127.0.0.1 is the container and not the router."""
        for index, text in self.items(option):
            with contextlib.suppress(ValueError):
                if ipaddress.ip_address(text).is_loopback:
                    self.warn(
                        f"{text} is the container itself, where no name server answers",
                        option=option,
                        index=index,
                        expected="the router's address in the LAN, such as 192.168.1.1",
                    )

    def wait_for_file(self, wrong: str, *, field: str, option: str, index: int, expected: str) -> None:
        """Notes that a file named by an entry does not exist yet. That is not a mistake: the container waits for it."""
        # not in the issues: the container waits for the file as for a mount, and starts by itself when it appears
        self.away.append(UnreadFile(field=field, reason=f"{option} {wrong}"))
        self.warn(f"{wrong}; the container waits for it", option=option, index=index, expected=expected)

    def _line(self, option: str, index: int | None) -> int:
        found = self._options.get(option)
        if found is None or not found.lines:
            return self.section.line
        # several entries may come from one line, so there may be fewer lines than entries
        return found.lines[min(index or 0, len(found.lines) - 1)]

    def is_refused(self, option: str) -> bool:
        """Whether the option, or one of its entries, is invalid."""
        return any(name == option for name, _ in self._refused)

    def has(self, option: str) -> bool:
        return option in self._options

    def text(self, name: str) -> str | None:
        """The text of a scalar option, None if it is unset or refused."""
        option = self._options.get(name)
        # the schema reported a list in place of a scalar: do not use any of its entries
        if option is None or not isinstance(option.value, str) or (name, None) in self._refused:
            return None
        return option.value

    def parsed(self, name: str, parser: Callable[[str], T]) -> T | None:
        """A scalar option, converted by a parser."""
        text = self.text(name)
        return None if text is None else self._parse(parser, text, option=name, index=None)

    def flag(self, name: str) -> bool | None:
        return self.parsed(name, parse_bool)

    def items(self, name: str) -> tuple[tuple[int, str], ...]:
        """The entries of a list option with their indices, without refused ones."""
        option = self._options.get(name)
        # people write `option` for a list with a single entry; libuci then returns a string
        if option is None:
            return ()
        values = (option.value,) if isinstance(option.value, str) else option.value
        # indices refer to the file, so that messages name the entry that the user counts
        return tuple((i, value) for i, value in enumerate(values) if (name, i) not in self._refused)

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(value for _, value in self.items(name))

    def each_item(self, name: str, parser: Callable[[str], T]) -> Iterator[tuple[int, T]]:
        """The entries of a list option converted by a parser, one by one, without refused ones."""
        for index, text in self.items(name):
            value = self._parse(parser, text, option=name, index=index)
            if value is not None:
                yield index, value

    def parsed_items(self, name: str, parser: Callable[[str], T]) -> tuple[tuple[int, T], ...]:
        """All results of `each_item`."""
        return tuple(self.each_item(name, parser))

    def values(self, name: str, parser: Callable[[str], T]) -> tuple[T, ...]:
        return tuple(value for _, value in self.parsed_items(name, parser))

    def words(self, name: str) -> tuple[str, ...] | None:
        """A command: an option is split like a shell does, a list has one argument per entry; None if unset."""
        option = self._options.get(name)
        entries = self.texts(name)
        if option is None:
            return None
        if isinstance(option.value, str):
            if _ARRAY.fullmatch(option.value):
                self.warn(
                    "is one word with brackets: UCI has no arrays",
                    option=name,
                    expected=f"a line as for a shell, or one `list {name}` line for each argument",
                )
            return self._parse(split_words, option.value, option=name, index=0)
        return entries

    def _parse(self, parser: Callable[[str], T], text: str, *, option: str, index: int | None) -> T | None:
        try:
            return parser(text)
        except QuantityError as exc:
            # true if the parser's message would show the value of a secret option
            wrong = (
                "the value does not have the right form"
                if (
                    bool(text)
                    and is_list(self.kind, option)
                    and is_secret(self.kind, option)
                    and text in exc.wrong
                )
                else exc.wrong
            )
            self.report(wrong, option=option, index=index, expected=exc.expected)
            return None
