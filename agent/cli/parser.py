# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses a command line by the table in `commands`, and writes help from it.

Only the parser of the requested command is built, so that `ucidockd status` starts quickly on a router.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from agent import __version__
from agent.cli.commands import COMMANDS, DOCKER_WORDS, GROUPS
from agent.cli.commands.row import COMMON, HELP, Command
from agent.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from agent.files.options import RuntimeOptions

_PROGRAM = "ucidockd"
_INTRO = "Keeps Docker the way UCI says: containers, networks and volumes of /etc/config/containers."
# argparse's messages, which we say in our own words
_REQUIRED = re.compile(r"the following arguments are required: (.+)")
_NO_VALUE = re.compile(r"argument (\S+?)(?:/\S+)?: expected (?:one|at least one) argument")

_VALUE = re.compile(r"argument (\S+?)(?:/\S+)?: ignored explicit argument .*")


class _Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse(argv: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """The command and its arguments. Raises UsageError."""
    words = list(argv)
    at = _first_word(words, _valued(COMMON.values()))
    # `--` may also stand before the command, as other programs allow it
    if words[at : at + 1] == ["--"]:
        del words[at]
    before, after = words[:at], words[at:]
    known = {flag for option in COMMON.values() for flag in option.flags}
    for word in before:
        flag = word.partition("=")[0]
        if word.startswith("-") and flag not in known and flag not in HELP.flags:
            owner = next((c for c in COMMANDS if flag in _flags_of(c)), None)
            hint = f"it is an option of `{_PROGRAM} {owner.name}` and follows the command" if owner else ""
            near = "; did you mean --version?" if flag == "-v" else _near(flag, known)
            raise UsageError(f"unknown option {flag}" + (f": {hint}" if hint else near))
    if not after:
        raise UsageError(f"a command is missing after `{' '.join(before)}`")
    command, count = _find(after)
    # move options before the command behind it, so that a single parser handles all
    return command, _parse(command, [*before, *after[count:]])


def asked_for_help(argv: Sequence[str]) -> str | None:
    """The text for `--help`, `-h` or `--version`; None if none of them is given. Raises UsageError."""
    words = list(argv)
    at = _first_word(words, _valued(COMMON.values()))
    # only options, no command
    if at == len(words):
        if "--version" in words or "-V" in words:
            return f"{_PROGRAM} {__version__}\n"
        return overview() if _wants_help(words) else None
    if _wants_help(words[:at]):
        return help_for(words[at:])
    try:
        command, count = _find(words[at:])
    except UsageError:
        longer = [c for c in COMMANDS if c.name.split()[0] == words[at]]
        if longer and _wants_help(words[at:]):
            return help_of(longer[0])
        raise
    ours = words[at + count :]
    if command.rest:
        # in `exec web ls --help` the help is that of ls
        ours = ours[: _first_word(ours, _valued(command.all_options()))]
    return help_of(command) if _wants_help(ours) else None


def _wants_help(words: Sequence[str]) -> bool:
    return "--help" in words or "-h" in words


def help_for(words: Sequence[str]) -> str:
    """The help of the named command, or of all. Raises UsageError."""
    return help_of(_find(words)[0]) if words else overview()


def _find(words: Sequence[str]) -> tuple[Command, int]:
    """The command that the words start with, and the number of words in its name."""
    # names of two words first: their first word may be a command too
    for command in COMMANDS:
        name = command.name.split()
        if list(words[: len(name)]) == name:
            return command, len(name)
    longer = [c.name for c in COMMANDS if c.name.split()[0] == words[0]]
    if longer:
        raise UsageError(
            f"`{words[0]}` needs a second word: {_listed([f'{_PROGRAM} {name}' for name in longer])}"
        )
    raise UsageError(_unknown_command(words[0]))


def _unknown_command(word: str) -> str:
    if word in DOCKER_WORDS:
        return f"there is no command `{word}`: {DOCKER_WORDS[word]}"
    import difflib  # late, because only a mistake needs it

    names = [c.name.split()[0] for c in COMMANDS]
    # people often type a prefix, while difflib prefers words of the same length
    begun = [name for name in names if len(word) > 2 and name.startswith(word)]
    near = begun or difflib.get_close_matches(word[:32], names, n=1, cutoff=0.55)
    hint = f"did you mean `{_PROGRAM} {near[0]}`?" if near else f"`{_PROGRAM} --help` lists the commands"
    return f"there is no command `{word[:64]}`; {hint}"


def _near(flag: str, known: Iterable[str]) -> str:
    import difflib  # late, because only a mistake needs it

    near = difflib.get_close_matches(flag, sorted(known), n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def _flags_of(command: Command) -> list[str]:
    return [flag for option in command.all_options() for flag in option.flags]


def _valued(options: Iterable[Any]) -> frozenset[str]:
    return frozenset(flag for option in options if option.takes_value for flag in option.flags)


def _first_word(words: Sequence[str], valued: frozenset[str]) -> int:
    """The index of the first word that is neither an option nor its value."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        word = words[at]
        # the last letter of `-itu` may be an option that takes a value
        is_valued = word in valued or (word[1] != "-" and len(word) > 2 and f"-{word[-1]}" in valued)
        at += 2 if is_valued else 1
    return min(at, len(words))


def _parse(command: Command, words: list[str]) -> argparse.Namespace:
    parser = build(command)
    rest: list[str] = []
    if command.rest:  # everything after the first word is the command line of another program
        cut = _first_word(words, _valued(command.all_options())) + 1
        words, rest = words[:cut], words[cut:]
        rest = rest[1:] if rest[:1] == ["--"] else rest
    words = [word for word in words if word != "--"]  # no name begins with a dash
    try:
        # intermixed parsing allows `logs web -f db` like docker and git; known_args, so that extra words get our own hint
        args, extra = parser.parse_known_intermixed_args(words)
    except UsageError as exc:
        raise UsageError(_in_words(command, str(exc)), command.name) from None
    except argparse.ArgumentError as exc:
        raise UsageError(_in_words(command, str(exc)), command.name) from None
    if extra:
        raise UsageError(_too_much(command, extra[0]), command.name)
    args.command, args.rest = command.name, rest
    return args


def _in_words(command: Command, message: str) -> str:
    # argparse's own messages name only flags and metavars: also say what a missing argument is for
    if match := _REQUIRED.fullmatch(message):
        missing = match[1].split(", ")[0]
        what = next((o.help for o in command.arguments if missing in (o.flags[0], o.metavar)), "")
        name = next((o.metavar for o in command.arguments if missing == o.flags[0]), missing)
        return f"{name} is missing" + (f": {what}" if what else "")
    if match := _NO_VALUE.fullmatch(message):
        option = next((o for o in command.all_options() if match[1] in o.flags), None)
        return f"{match[1]} needs a value" + (f": {option.help}" if option else "")
    if match := _VALUE.fullmatch(message):
        return f"{match[1]} takes no value"
    option = next((o for o in command.arguments if message.startswith(f"argument {o.flags[0]}: ")), None)
    return message.removeprefix(f"argument {option.flags[0]}: " if option else "argument ")


def _too_much(command: Command, word: str) -> str:
    hint = f": {command.hint}" if command.hint else ""
    if not word.startswith("-"):
        return f"`{word[:64]}` is one word too many{hint}"
    flag = word.partition("=")[0]
    if flag in command.words:
        return f"unknown option {flag}: {command.words[flag]}"
    near = _near(flag, _flags_of(command))
    others = [c.name for c in COMMANDS if flag in _flags_of(c)]
    # a single letter means something else in each command, so a hint to another command would mislead
    if near or not others or len(flag) == 2:
        return f"unknown option {flag}{near or hint}"
    return f"{flag} does not apply to `{command.name}`; it is an option of {_listed(others)}"


def _listed(names: Sequence[str]) -> str:
    shown = [f"`{name}`" for name in names[:3]]
    return ", ".join(shown) + (" and others" if len(names) > 3 else "")


def build(command: Command) -> argparse.ArgumentParser:
    """The argparse parser of one command."""
    parser = _Parser(prog=f"{_PROGRAM} {command.name}", add_help=False, allow_abbrev=False)
    for argument in (*command.arguments, *command.all_options()):
        parser.add_argument(*argument.flags, **argument.settings)
    return parser


# help


def overview() -> str:
    """All commands in groups, one line each."""
    lines = [f"Usage: {_PROGRAM} COMMAND [OPTION ...]", "", *_wrapped(_INTRO, 0)]
    width = max(len(c.name) for c in COMMANDS)
    for title in GROUPS:
        # in the table's order, which is by use and not alphabetical
        lines += ["", f"{title}:"]
        for command in COMMANDS:
            if command.group == title:
                lines += _entry(command.name, command.summary, width)
    lines += ["", *_wrapped("Options of most commands, before or after the command:", 0)]
    lines += _options(COMMON.values())
    lines += ["", *_wrapped(f"`{_PROGRAM} COMMAND --help` shows its options, examples and exit codes.", 0)]
    return "\n".join(lines) + "\n"


def help_of(command: Command) -> str:
    """The help of one command: what it does, its arguments and options, examples and exit codes."""
    lines = [*_wrapped(f"Usage: {_PROGRAM} {synopsis(command)}", 0), "", *_wrapped(command.description, 0)]
    if command.arguments:
        lines += ["", "Arguments:", *_options(command.arguments)]
    if command.options:
        lines += ["", "Options:", *_options(command.options)]
    common = [COMMON[name] for name in command.common]
    if common:
        lines += ["", "Common options:", *_options(common)]
    lines += ["", "Examples:"]
    for text, what in command.examples:
        lines += [f"  {text}", *_wrapped(what, 6)]
    lines += ["", "Exit codes:"]
    for code, what in command.exit_codes:
        lines += _entry(str(code), what, 3)
    return "\n".join(lines) + "\n"


def synopsis(command: Command) -> str:
    """`logs [OPTION ...] NAME ...`."""
    words = [command.name]
    if command.options or command.common:
        words.append("[OPTION ...]")
    words += [argument.shown for argument in command.arguments]
    return " ".join([*words, *([command.rest] if command.rest else [])])


def _options(options: Iterable[Any]) -> Iterator[str]:
    for option in options:
        yield from _entry(option.head, option.help, 22)


def _entry(head: str, text: str, width: int) -> Iterator[str]:
    """A head with its text beside it, or below if the head is long or the terminal narrow."""
    room = _columns()
    if room < 60 and width > 12:
        yield f"  {head}"
        yield from _wrapped(text, 6)
        return
    lines = _wrapped(text, width + 4)
    if len(head) > width:
        yield f"  {head}"
    else:
        yield f"  {head.ljust(width)}  {lines.pop(0).lstrip()}"
    yield from lines


def _wrapped(text: str, indent: int) -> list[str]:
    """Paragraphs wrapped to the terminal's width, at most 100 columns, because longer lines are hard to read."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = " " * indent
        # split at single spaces: several spaces in a row belong to a shown command and must stay
        for word in paragraph.split(" "):
            longer = f"{line}{' ' if line.strip() else ''}{word}"
            # one column less than available: some terminals break a line that fills the last column
            if len(longer) > _columns() - 1 and line.strip():
                lines.append(line)
                longer = " " * indent + word
            line = longer
        lines.append(line.rstrip())
    return lines


def _columns() -> int:
    said = os.environ.get("COLUMNS", "")
    if said.isdigit() and int(said):
        return min(int(said), 100)
    try:
        return min(os.get_terminal_size(sys.stdout.fileno()).columns or 80, 100)
    except (OSError, ValueError, AttributeError):
        return 80


# options that select the folders and the engine
FOLDERS = ("config_dir", "override_dir", "state_dir", "save_dir")
ENGINE = {"docker_host": "DOCKER_HOST", "docker_cert_path": "DOCKER_CERT_PATH"}


def runtime_options(args: argparse.Namespace) -> RuntimeOptions:
    """The options on the command line, else in docker's environment variables. Raises ConfigError."""
    from pathlib import Path

    from agent.files.options import RuntimeOptions

    given: dict[str, Any] = {name: Path(value) for name in FOLDERS if (value := getattr(args, name, None))}
    # the command line takes precedence over the environment, as in docker
    for name, variable in ENGINE.items():
        if value := getattr(args, name, None) or from_environment(variable):
            given[name] = value
    for name in ("socket", "log_level", "ubus_socket"):
        if value := getattr(args, name, None):
            given[name] = value
    return RuntimeOptions(**given)


def from_environment(variable: str) -> str:
    """The value of one of docker's variables. Raises ConfigError if the agent does not support it."""
    text = os.environ.get(variable, "")
    if not text or variable != "DOCKER_HOST":
        return text
    from agent.model.addresses import parse_engine_address
    from agent.model.quantities import QuantityError

    # name the variable in the error: otherwise people would look for the mistake in our configuration
    try:
        return str(parse_engine_address(text))
    except QuantityError as exc:
        raise ConfigError(
            f"the environment variable DOCKER_HOST: {exc}; correct it, or `unset DOCKER_HOST`"
        ) from exc
