# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the committed configuration into a Desired, with every mistake in it.

Without a readable /etc/config/containers there is no Desired, and running containers are left alone. Without a
readable /etc/config/dockerd only dockerd's settings are unknown.

libuci has a dozen phrases for the mistakes of a file and stops at the first one. Here each mistake says what is wrong in
a line, and what to write instead. Values are never quoted, because they may be secrets.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.errors import ConfigError, PathError, UciEditError
from agent.files.atomic import atomic_write
from agent.files.options import RuntimeOptions
from agent.files.uci_store import PyuciStore, TextUciStore, UciMissing, UciStore, read_staged
from agent.files.user_paths import PATHS, kind_of, mode_of, no_folder
from agent.model.addresses import UNKNOWN_MACHINE, Machine
from agent.model.dockerd.settings import DaemonSettings
from agent.model.issues import Code, GivenConfig, Issue
from agent.model.resources import Desired
from agent.plan.draft import with_hashes
from agent.uci.decode import PACKAGES, DecodeResult, decode
from agent.uci.syntax import Fault, Package, Section, UciSyntaxError, faults, parse, section_text

_MOST = 50  # of one file; the rest mostly follows from the first ones
_COMMANDS = ("config", "option", "list", "package")
_TYPOGRAPHIC = "\u2018\u2019\u201c\u201d\u201a\u201e\u00ab\u00bb"
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMistake:
    """One mistake; `line` is the line on which it begins, counted from 1."""

    line: int
    wrong: str
    expected: str


def mistakes_of(text: str, *, package: str) -> tuple[FileMistake, ...]:
    """All mistakes of a file that libuci refuses, at most 50. If the file is not UCI at all, only that."""
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            other = _other_syntax(line, package)
            if other is not None:
                return (FileMistake(line=number, wrong=other[0], expected=other[1]),)
            # only the first non-empty line counts: a `docker run` further down may be part of a value
            break
    found: list[FileMistake] = []
    for fault in faults(text, package=package, most=_MOST):
        wrong, expected = _words(fault, lines[fault.line - 1], package)
        found.append(FileMistake(line=fault.line, wrong=wrong, expected=expected))
    return tuple(found)


def without(text: str, found: tuple[FileMistake, ...]) -> str:
    """The text without the lines of these mistakes; a section with a mistake in its `config` line stays, without a name."""
    lines = text.split("\n")
    for mistake in found:
        words = lines[mistake.line - 1].split(maxsplit=2)
        is_section = len(words) > 1 and words[0] == "config"
        lines[mistake.line - 1] = f"config {words[1]}" if is_section else ""
    return "\n".join(lines)


def _other_syntax(line: str, package: str) -> tuple[str, str] | None:
    """Recognizes Docker's formats by the first line of a file; None if it may be UCI."""
    made = "`config container 'NAME'` sections, which `ucidockd import compose FILE` makes of a compose file"
    if package == "dockerd":
        made = "`config globals 'globals'`, in which `option alt_config_file '/path/daemon.json'` names such a file"
    if line.lstrip().startswith(("{", "[{")):
        return "the file is JSON, but it must be a UCI file", made
    # by keys that compose files begin with, because a UCI line may contain a colon too
    if re.match(r"---\s*$|(services|version|name|networks|volumes|include|x-[\w.-]+)\s*:", line):
        return "the file is YAML, but it must be a UCI file", made
    # including the prompt and `sudo` that people copy from web pages
    if re.match(r"\s*(\$\s+)?(sudo\s+)?(docker|podman)\s+(container\s+)?(run|create)\b", line):
        return (
            "this is a command line, not UCI",
            "`config container 'NAME'`, which `ucidockd import run < FILE` makes of it",
        )
    return None


def _words(fault: Fault, line: str, package: str) -> tuple[str, str]:
    verb, _, first = fault.head.partition(" ")
    # editors of other systems write these; libuci would only report an invalid command or name
    if line.startswith(_BOM):
        return "the file begins with a byte order mark", "UTF-8 without BOM"
    if any(letter in line for letter in _TYPOGRAPHIC):
        return "the line has typographic quotes", "plain quotes: ' or \""
    match fault.detail:
        case "EOF with unterminated":
            return f"the quote opened in `{fault.head}` is never closed", "a closing quote on the same line"
        case "invalid command":
            return _unknown_command(line)
        case "too many arguments":
            return (
                f"`{fault.head}` has more than one value",
                f"one value in quotes, as in `{fault.head} 'a b c'`",
            )
        case "option/list command found before the first section":
            return f"`{fault.head}` stands before the first section", "a `config` line above it"
        case "section of different type overwrites prior section with same name":
            kind, number = fault.other
            taken = f"`{fault.word}` is already the {kind} of line {number}; names are unique in a UCI file"
            other = f"`config {first or 'TYPE'} '{fault.word}_{first or '2'}'`"
            return taken, f"another name, as in {other}, with `option name '{fault.word}'`"
        case "invalid character in name field":
            shown = fault.word[:64]
            plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in shown)
            # libuci says "name field" for section names and option names
            if verb != "config" and verb in _FORMS:
                # as in a shell or in the output of `uci show`; do not quote the rest, which may be a secret
                name, equals, _ = fault.word.partition("=")
                if equals and re.fullmatch("[A-Za-z0-9_]+", name):
                    return (
                        f"an equals sign follows `{verb} {name}`",
                        f"a space, as in `{verb} {name} 'VALUE'`",
                    )
                return f"`{shown}` is not an option name: letters, digits and `_` only", f"`{verb} {plain}`"
            wish = f"`config {fault.head.partition(' ')[2] or 'TYPE'} '{plain}'`"
            # only our sections have `option name`; those of dockerd's package are identified by their type
            named = f" and `option name '{shown}'`" if package == "containers" else ""
            return f"section names may hold letters, digits and `_` only, unlike `{shown}`", wish + named
        case "invalid character in type field":
            return "the section type holds a character that is not allowed", "a type such as `container`"
    return f"`{verb or 'the command'}` is not complete", _FORMS.get(verb, "config TYPE 'NAME'")


_FORMS = {
    "config": "`config TYPE 'NAME'`, as in `config container 'web'`",
    "option": "`option NAME 'VALUE'`",
    "list": "`list NAME 'VALUE'`",
}


def _unknown_command(line: str) -> tuple[str, str]:
    """An unknown command word. It is quoted only if it resembles a command, because otherwise it may be part of a
    secret."""
    import difflib  # imported only for mistakes

    word = line.split(maxsplit=1)[0] if line.split() else ""
    near = difflib.get_close_matches(word[:32], _COMMANDS, n=1)
    if near and near[0] == word:
        return f"`{word}` is not complete", _FORMS.get(word, "`package NAME`")
    if near:
        return f"`{word[:32]}` is not a UCI command", f"`{near[0]}`"
    return "the line does not begin with a UCI command", "`config`, `option` or `list`"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """`desired` is None if /etc/config/containers cannot be read; then `readable` has dockerd's settings and the
    agent section, as far as they can be read or are remembered.

    `agent`: the text of the agent section, to be remembered; "" if there is none.
    """

    desired: Desired | None
    issues: tuple[Issue, ...] = ()
    readable: Desired = field(default_factory=Desired)
    agent: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)  # of the container sections, by name
    lines: Mapping[str, tuple[str, int]] = field(default_factory=dict)  # of dockerd's options: file and line


def decode_edited(store: UciStore, package: Package) -> DecodeResult:
    """Decodes an edited package that is not written yet, together with the other packages."""
    packages = {package.name: package}
    for other in PACKAGES:
        if other != package.name:
            with contextlib.suppress(UciMissing):
                packages[other] = store.load(other)
    return decode(packages, paths={}, read_file=PATHS.read_text)


def open_store(options: RuntimeOptions) -> UciStore:
    """libuci through pyuci if it is installed, else our own text store."""
    kind = PyuciStore if importlib.util.find_spec("uci") else TextUciStore
    return kind(config_dir=options.config_dir, override_dir=options.override_dir)


def load(options: RuntimeOptions) -> LoadResult:
    """Reads and validates the configuration. Never raises for what a user can write into the files."""
    return _load(open_store(options), remembered=_agent_file(options))


def remember_agent(options: RuntimeOptions, text: str) -> None:
    """Saves the agent section for a start at which /etc/config/containers cannot be read: it says who starts dockerd,
    and where the engine is. Raises OSError.
    """
    path = _agent_file(options)
    if text != (path.read_text() if path.exists() else ""):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_write(path, text.encode(), mode=0o600)


def _agent_file(options: RuntimeOptions) -> Path:
    return options.state_dir / "agent.uci"


def load_given(options: RuntimeOptions, given: GivenConfig, machine: Machine = UNKNOWN_MACHINE) -> LoadResult:
    """Like `load`, as if `given` were committed. Writes nothing. `machine`: the one that the engine runs on.

    Raises ConfigError for a package that is not ours, and UciEditError for sections that cannot be written to a file.
    """
    for name in (*given.texts, *given.sections):
        if name not in PACKAGES:
            raise ConfigError(f"unknown package {name[:64]!r}; use {' or '.join(PACKAGES)}")
    save_dir = Path(given.save_dir) if given.save_dir else options.save_dir
    return _load(_Given(open_store(options), given, save_dir), machine)


class _Given:
    """A store in which some packages have given content instead of the committed one."""

    def __init__(self, store: UciStore, given: GivenConfig, save_dir: Path) -> None:
        self._store = store
        self._given = given
        self._save_dir = save_dir

    def source_path(self, package: str) -> Path:
        said = self._given.paths.get(package, "")
        return Path(said) if said else self._store.source_path(package)

    def load_with_hash(self, package: str) -> tuple[Package, str]:
        sections = self._given.sections.get(package)
        if sections is None:
            return self._before(package)
        try:
            before, digest = self._before(package)
        except UciMissing:
            before, digest = Package(name=package), ""
        from agent.uci.edit import with_sections

        # a different hash, so that the plan for these sections is never taken for that of the committed file
        given = json.dumps(sections, sort_keys=True)
        return with_sections(before, sections), hashlib.sha256(f"{digest} {given}".encode()).hexdigest()

    def _before(self, package: str) -> tuple[Package, str]:
        text = self._given.texts.get(package)
        if text is not None:
            digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
            return parse(text, package=package, path=str(self.source_path(package))), digest
        committed, digest = self._store.load_with_hash(package)
        # in libuci's order: staged changes apply on top of the committed file
        changes = read_staged(self._save_dir, package) if self._given.staged else ()
        if not changes:
            return committed, digest
        from agent.uci.edit import replayed

        return replayed(committed, changes), hashlib.sha256(f"{digest} {changes}".encode()).hexdigest()


def _load(
    store: UciStore | _Given, machine: Machine = UNKNOWN_MACHINE, *, remembered: Path | None = None
) -> LoadResult:
    packages: dict[str, Package] = {}
    hashes: list[str] = []
    issues: list[Issue] = []
    for name in PACKAGES:
        issues += _read(store, name, packages, hashes)
    unreadable = {issue.package for issue in issues}
    for name in unreadable:
        packages[name] = _rest_of(store, name, remembered if name == "containers" else None)
    paths = {name: str(store.source_path(name)) for name in packages}
    result = decode(packages, paths=paths, read_file=PATHS.read_text, machine=machine)
    found = result.desired
    if "dockerd" in unreadable:
        found = replace(
            found,
            daemon=replace(found.daemon or DaemonSettings(), unreadable=True),
            daemon_mistakes=(f"{paths['dockerd']} cannot be read",),
        )
    if "containers" in unreadable:
        # not applied, but dockerd may start with it, and the status can say where the engine is
        readable = Desired(agent=found.agent, daemon=found.daemon, daemon_mistakes=found.daemon_mistakes)
        return LoadResult(desired=None, issues=_by_line(issues), readable=readable)
    generation = hashlib.sha256("".join(hashes).encode()).hexdigest()[:12]
    return LoadResult(
        desired=with_hashes(replace(found, generation=generation)),
        issues=_by_line([*issues, *(i for i in result.issues if i.package not in unreadable)]),
        texts={s.name: section_text(s) for s in _of_type(packages, "container") if not s.anonymous},
        lines={
            option.name: (paths["dockerd"], option.lines[0])
            for section in (packages["dockerd"].sections if "dockerd" in packages else ())
            if section.type in {"globals", "proxies"}
            for option in section.options
            if option.lines
        },
        agent="".join(map(section_text, _of_type(packages, "agent"))),
    )


# sections that mean the same without the rest of their file
_ALONE = {"containers": {"agent"}, "dockerd": {"firewall", "auth"}}


def _rest_of(store: UciStore | _Given, name: str, remembered: Path | None) -> Package:
    """The usable sections of a file with syntax errors, without the wrong lines; or `remembered` if the file cannot
    be read at all.
    """
    sections: tuple[Section, ...] = ()
    try:
        store.load_with_hash(name)
    except UciSyntaxError as exc:
        with contextlib.suppress(UciSyntaxError):
            sections = parse(without(exc.text, mistakes_of(exc.text, package=name)), package=name).sections
    except ConfigError:  # reported as an issue elsewhere
        with contextlib.suppress(OSError, UnicodeError, UciSyntaxError):
            sections = parse(remembered.read_text(), package=name).sections if remembered is not None else ()
    return Package(name=name, sections=tuple(s for s in sections if s.type in _ALONE[name]))


def _of_type(packages: Mapping[str, Package], kind: str) -> Iterable[Section]:
    package = packages.get("containers")
    return (s for s in package.sections if s.type == kind) if package is not None else ()


def _by_line(issues: Iterable[Issue]) -> tuple[Issue, ...]:
    return tuple(sorted(issues, key=lambda issue: (issue.file, issue.line)))


def _read(
    store: UciStore | _Given, name: str, packages: dict[str, Package], hashes: list[str]
) -> list[Issue]:
    path = str(store.source_path(name))
    try:
        packages[name], content_hash = store.load_with_hash(name)
        hashes.append(content_hash)
    except UciMissing:
        # a missing /etc/config/dockerd is fine: containers can be managed without dockerd's settings
        return [] if name == "dockerd" else [_issue(name, path, None, *_missing(path))]
    except UciSyntaxError as exc:
        found = mistakes_of(exc.text, package=name)
        return [_issue(name, path, m.line, m.wrong, m.expected, "syntax") for m in found] + _others(
            exc.text, name, path, found
        )
    except UciEditError:
        raise  # concerns given sections, which are in no file
    except ConfigError as exc:
        wish = "the rights of root" if isinstance(exc.__cause__, PermissionError) else "a readable UCI file"
        return [_issue(name, path, None, str(exc), wish)]
    return []


def _missing(path: str) -> tuple[str, str]:
    """Why there is no UCI file, and what is expected."""
    # the folder may be missing, or the path may be something other than a file: each gets its own advice
    try:
        mode = PATHS.ask(mode_of, path)
        wrong = PATHS.ask(no_folder, os.path.dirname(path)) if mode is None else f"it is {kind_of(mode)}"
    except PathError as exc:
        wrong = str(exc)
    if wrong:
        return wrong, "a UCI file"
    return "there is no such file", f"a UCI file; `touch {path}` makes an empty one"


def _others(text: str, name: str, path: str, found: tuple[FileMistake, ...]) -> list[Issue]:
    """Mistakes in options of a file with syntax errors, except those that merely follow from these errors."""
    try:
        package = parse(without(text, found), package=name, path=path)
    except UciSyntaxError:
        return []
    starts = [section.line for section in package.sections]
    lines = {mistake.line for mistake in found}
    # a section with a wrong line may lack the option in that line
    torn = {bisect.bisect_right(starts, line) - 1 for line in lines}
    issues = decode({name: package}, paths={name: path}, read_file=None).issues
    return [
        issue
        for issue in issues
        if issue.code in _BY_THEMSELVES
        and issue.line not in lines
        and (issue.code != "missing-option" or bisect.bisect_right(starts, issue.line) - 1 not in torn)
    ]


# mistakes that do not depend on other sections
_BY_THEMSELVES = frozenset({"unknown-option", "missing-option", "wrong-type", "encoding", "repeated"})


def _issue(
    package: str, path: str, line: int | None, message: str, expected: str, code: Code = "file"
) -> Issue:
    return Issue(
        severity="error",
        code=code,
        package=package,
        section="",
        option="",
        index=None,
        file=path,
        line=line or 0,
        message=message,
        expected=expected,
    )
