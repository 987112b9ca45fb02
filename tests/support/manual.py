# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the man pages, the shell completions and the reference: `make manual`. A test says when they are stale.

The commands are those of argparse's parser, the options of the sections those of the schemas.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.cli.main import EXIT_CODES, _parser
from tests.support import reference

PROJECT = Path(__file__).resolve().parents[2]
SECTIONS = ("agent", "container", "network", "volume", "auth")  # of /etc/config/containers
_LICENCE = "SPDX-License-Identifier: GPL-2.0-or-later"
_NAME = "ucidockd"
_COMPLETED = {"FILE": "files", "DIR": "files"}

Command = tuple[tuple[str, ...], str, argparse.ArgumentParser]


def documents() -> dict[Path, str]:
    """Every file that this makes, with its text."""
    return {
        PROJECT / "docs/man/ucidockd.8": _commands_page(),
        PROJECT / "docs/man/ucidockd.containers.5": _sections_page(),
        PROJECT / "package/completion/ucidockd.bash": _bash(),
        PROJECT / "package/completion/_ucidockd": _zsh(),
        PROJECT / "package/completion/ucidockd.fish": _fish(),
        **reference.documents(),
    }


def commands() -> list[Command]:
    """The words of each command, what it does, and its parser."""
    return list(_below((), _parser()))


def _below(words: tuple[str, ...], parser: argparse.ArgumentParser) -> Iterator[Command]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, child in action.choices.items():
                inner = list(_below((*words, name), child))
                yield from inner or [((*words, name), helps.get(name, ""), child)]


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Those that begin with a dash; `--help` is everywhere and not among them."""
    return [a for a in parser._actions if a.option_strings and a.dest != "help"]


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if not a.option_strings]


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def _metavar(action: argparse.Action) -> str:
    if action.choices:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper().replace("_", "-"))


# man pages: roff as man(7) describes it


def _roff(text: str) -> str:
    """Text as roff shows it literally; `code` becomes bold."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    lines = (rf"\&{line}" if line.startswith((".", "'")) else line for line in text.split("\n"))
    return "\n".join(lines)


def _title(name: str, section: int, what: str) -> str:
    return (
        f'.\\" {_LICENCE}\n.\\" made by `make manual`: do not edit\n'
        f'.TH {name.upper()} {section} "" "{_NAME}" "{what}"\n'
    )


def _commands_page() -> str:
    out = [
        _title(_NAME, 8, "System administration"),
        ".SH NAME\n",
        _roff("ucidockd - keeps Docker the way UCI says"),
    ]
    out.append("\n.SH SYNOPSIS\n")
    for words, _, parser in commands():
        out.append(f".B {_NAME} {' '.join(words)}\n.RI [ option ...]{_synopsis(parser)}\n.br\n")
    out.append(".SH DESCRIPTION\n")
    out.append(
        _roff(
            "ucidockd reads `/etc/config/containers` and `/etc/config/dockerd`, and creates, changes and removes"
            " containers, networks and volumes of the Docker Engine until they match. `ucidockd run` is the agent:"
            " it does so after every `uci commit`. The other commands ask it, and most of them work without it."
            " What is not declared is never touched."
        )
    )
    out.append("\n.SH COMMANDS\n")
    common = _common()
    for words, what, parser in commands():
        out.append(f".SS {_roff(' '.join((_NAME, *words)))}\n{_roff(_sentence(what))}\n")
        for action in (*_positionals(parser), *options_of(parser)):
            if action.dest not in common:
                out.append(_entry(action))
    out.append(".SH COMMON OPTIONS\nEvery command takes them.\n")
    out += [_entry(action) for action in common.values()]
    codes = [line.strip().partition("  ") for line in EXIT_CODES.splitlines()[1:]]
    out.append(".SH EXIT STATUS\n")
    out += [f".TP\n.B {code}\n{_roff(_sentence(what))}\n" for code, _, what in codes]
    out.append(".SH FILES\n")
    for path, what in (
        ("/etc/config/containers", "the sections that are declared: `ucidockd.containers`(5)"),
        ("/etc/config/dockerd", "dockerd's settings"),
        ("/etc/ucidockd/state.json", "which objects of the engine belong to which section"),
        ("/var/run/ucidockd/agent.sock", "the agent's control socket"),
    ):
        out.append(f".TP\n.I {_roff(path)}\n{_roff(_sentence(what))}\n")
    out.append(".SH SEE ALSO\n.BR ucidockd.containers (5),\n.BR dockerd (8)\n")
    return "".join(out)


def _common() -> dict[str, argparse.Action]:
    """The options that all commands have."""
    each = [{a.dest: a for a in options_of(parser)} for _, _, parser in commands()]
    return {dest: action for dest, action in each[0].items() if all(dest in other for other in each)}


def _synopsis(parser: argparse.ArgumentParser) -> str:
    words = []
    for action in _positionals(parser):
        name = _metavar(action)
        words.append(f"[{name} ...]" if action.nargs == "*" else name)
    return f"\n.I {_roff(' '.join(words))}" if words else ""


def _entry(action: argparse.Action) -> str:
    if action.option_strings:
        head = ", ".join(rf"\fB{_roff(name)}\fR" for name in action.option_strings)
        head += rf" \fI{_roff(_metavar(action))}\fR" if _takes_value(action) else ""
    else:
        head = rf"\fI{_roff(_metavar(action))}\fR"
    return f".TP\n{head}\n{_roff(_sentence(_help(action)))}\n"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def _sections_page() -> str:
    out = [_title("ucidockd.containers", 5, "File formats"), ".SH NAME\n"]
    out.append(_roff("ucidockd.containers - the containers, networks and volumes that ucidockd keeps"))
    out.append("\n.SH SYNOPSIS\n.I /etc/config/containers\n.SH DESCRIPTION\n")
    out.append(
        _roff(
            "A file in OpenWrt's UCI syntax. A section begins with `config TYPE 'NAME'`; names hold letters, digits and `_`,"
            " and are unique in the file. `option KEY 'VALUE'` sets one value, each `list KEY 'VALUE'` adds one to a list. A"
            " value in single quotes is taken literally. `ucidockd check` lists every mistake with its line."
        )
    )
    out.append("\n.PP\n.nf\n.RS 4\n" + _roff(_EXAMPLE) + "\n.RE\n.fi\n")
    for kind in SECTIONS:
        schema = json.loads((PROJECT / "schemas" / f"{kind}.schema.json").read_text())
        out.append(f".SH THE SECTION {kind.upper()}\n{_roff(_sentence(schema.get('description', '')))}\n")
        required = set(schema.get("required", ()))
        for name, entry in schema["properties"].items():
            out.append(_option(name, entry, is_required=name in required))
    out.append(".SH SEE ALSO\n.BR ucidockd (8)\n")
    return "".join(out)


_EXAMPLE = """\
config container 'web'
        option image 'nginx:1.27'
        option memory '64m'
        list port '8080:80'"""


def _option(name: str, entry: dict[str, Any], *, is_required: bool) -> str:
    is_list = entry["type"] == "array" if isinstance(entry["type"], str) else "array" in entry["type"]
    word = "list" if is_list else "option"
    text = _sentence(entry.get("description", ""))
    if is_required:
        text += " Required."
    default = entry.get("default")
    if isinstance(default, str) and default:
        text += f" Default: `{default}`."
    said = [_one_example(word, name, example) for example in entry.get("examples", [])[:2]]
    if said:
        text += f" Example: {', '.join(said)}."
    return f".TP\n.B {word} {_roff(name)}\n{_roff(text)}\n"


def _one_example(word: str, name: str, example: object) -> str:
    value = example[0] if isinstance(example, list) and example else example
    return f"`{word} {name} '{value}'`"


# completions: plain words of the parser, and names of containers from `docker ps`


def _names() -> dict[str, list[str]]:
    """First word -> the second words, where there are some."""
    found: dict[str, list[str]] = {}
    for words, _, _ in commands():
        found.setdefault(words[0], []).extend(words[1:])
    return found


def _kind(parser: argparse.ArgumentParser) -> str:
    for action in _positionals(parser):
        if action.choices:
            return "words " + " ".join(map(str, action.choices))
        return _COMPLETED.get(
            str(action.metavar), "names" if "Docker name" in (action.help or "") else "nothing"
        )
    return "nothing"


def _value_kind(action: argparse.Action) -> str:
    if action.choices:
        return "words " + " ".join(map(str, action.choices))
    is_path = action.type is Path or action.dest in {"socket", "ubus_socket", "docker_cert_path"}
    return "files" if is_path else "nothing"


_LIST_NAMES = "docker ps -a --format '{{.Names}}' 2>/dev/null"


def _bash() -> str:
    cases, values = [], {}
    for words, _, parser in commands():
        flags = " ".join(name for action in options_of(parser) for name in action.option_strings)
        kind = _kind(parser)
        more = {"names": f" $({_LIST_NAMES})", "files": "", "nothing": ""}.get(kind, f" {kind[6:]}")
        files = " files=-f" if kind == "files" else ""
        cases.append(f'\t\t{words[0]}) words="{flags} --help{more}"{files} ;;')
        for action in options_of(parser):
            if _takes_value(action):
                values["|".join(action.option_strings)] = _value_kind(action)
    options = [f"\t{names}) {_bash_value(kind)}; return ;;" for names, kind in sorted(values.items())]
    seconds = [f'\t"{first} 2") words="{" ".join(rest)}" ;;' for first, rest in _names().items() if rest]
    return f"""\
# {_LICENCE}
# made by `make manual`: do not edit
_ucidockd() {{
	local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" first="${{COMP_WORDS[1]-}}"
	local words='' files=''
	case "$before" in
{chr(10).join(options)}
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "{" ".join(_names())} --help" -- "$word")
		return
	fi
	case "$first $COMP_CWORD" in
{chr(10).join(seconds)}
	*)
		case "$first" in
{chr(10).join(cases)}
		esac
		;;
	esac
	mapfile -t COMPREPLY < <(compgen $files -W "$words" -- "$word")
}}
complete -F _ucidockd ucidockd
"""


def _bash_value(kind: str) -> str:
    if kind == "files":
        return 'mapfile -t COMPREPLY < <(compgen -f -- "$word")'
    return (
        f'mapfile -t COMPREPLY < <(compgen -W "{kind[6:]}" -- "$word")'
        if kind != "nothing"
        else "COMPREPLY=()"
    )


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")


def _zsh() -> str:
    lines = [f"#compdef {_NAME}", f"# {_LICENCE}", "# made by `make manual`: do not edit", ""]
    lines += ["_ucidockd_names() {", f'\tcompadd -- ${{(f)"$({_LIST_NAMES})"}}', "}", "", "_ucidockd() {"]
    helps = {words[0]: what for words, what, _ in commands()}
    lines += ["\tlocal -a commands", "\tcommands=("]
    lines += [f"\t\t'{name}:{_quoted(what).replace(':', '')}'" for name, what in helps.items()]
    lines += ["\t)", "\tif (( CURRENT == 2 )); then", "\t\t_describe command commands", "\t\treturn", "\tfi"]
    lines += ["\tlocal command=$words[2]", "\tshift words", "\t(( CURRENT-- ))", "\tcase $command in"]
    for words, _, parser in commands():
        specs = []
        for action in options_of(parser):
            text = re.sub(r"[\[\]:]", "", _help(action))
            value = f":value:{_zsh_value(_value_kind(action))}" if _takes_value(action) else ""
            specs += [f"'{name}[{_quoted(text)}]{value}'" for name in action.option_strings]
        specs += [f"':subcommand:({word})'" for word in words[1:]]
        specs += [f"'*:argument:{_zsh_value(_kind(parser))}'"]
        lines += [
            f"\t{words[0]})",
            "\t\t_arguments \\",
            " \\\n".join(f"\t\t\t{spec}" for spec in specs),
            "\t\t;;",
        ]
    lines += ["\tesac", "}", "", '_ucidockd "$@"', ""]
    return "\n".join(lines)


def _zsh_value(kind: str) -> str:
    if kind.startswith("words"):
        return f"({kind[6:]})"
    return {"files": "_files", "names": "_ucidockd_names"}.get(kind, "")


def _fish() -> str:
    lines = [f"# {_LICENCE}", "# made by `make manual`: do not edit", f"complete -c {_NAME} -f"]
    done = set()
    for words, what, parser in commands():
        if words[0] not in done:
            done.add(words[0])
            text = _quoted_fish(what)
            lines.append(f"complete -c {_NAME} -n __fish_use_subcommand -a {words[0]} -d '{text}'")
        seen = f"-n '__fish_seen_subcommand_from {words[0]}'"
        lines += [f"complete -c {_NAME} {seen} -a {word}" for word in words[1:]]
        for action in options_of(parser):
            flags = [f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in action.option_strings]
            value = _fish_value(_value_kind(action)) if _takes_value(action) else ""
            lines.append(
                f"complete -c {_NAME} {seen} {' '.join(flags)}{value} -d '{_quoted_fish(_help(action))}'"
            )
        kind = _kind(parser)
        if kind == "files":
            lines.append(f"complete -c {_NAME} {seen} -F")
        elif kind == "names":
            lines.append(f'complete -c {_NAME} {seen} -a "({_LIST_NAMES})"')
        elif kind != "nothing":
            lines.append(f"complete -c {_NAME} {seen} -a '{kind[6:]}'")
    return "\n".join(lines) + "\n"


def _fish_value(kind: str) -> str:
    if kind.startswith("words"):
        return f" -x -a '{kind[6:]}'"
    return " -r -F" if kind == "files" else " -x"


def _quoted_fish(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


if __name__ == "__main__":
    for path, text in documents().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
