# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans and results for people: a block for each object with its changed options, a sum, and what to do next.

Drawn from the JSON of `agent.plan.description`, which HTTP and ubus send, to the width of the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agent.cli.output import PLAIN, Style, output_lines, wrapped
from agent.model.identity import Key
from agent.model.issues import plain

NOTHING = "Nothing to do: everything is as declared."

# the strongest operation on an object -> sign, colour, its words in the sum, its words when done
_LEVELS = {
    "create": ("+", "good", "to create", "created"),
    "in place": ("~", "busy", "to change in place", "changed in place"),
    "replace": ("-/+", "busy", "to replace", "replaced"),
    "remove": ("-", "bad", "to remove", "removed"),
    "run": (">", "good", "to start or stop", "started or stopped"),
    "note": ("~", "dim", "to note", "noted"),
}
# of operations on one object the first of these is named
_STRENGTH = ("replace", "create", "remove", "in place", "run", "note")
_VERBS = {"retire": "remove", "setaside": "rename", "acknowledgeloss": "acknowledge the loss"}
# states that end without anyone's help, or as the user wanted
_WAITS = frozenset({"then", "in progress", "waiting", "removal", "held", "disabled"})
_TOLD_OF_CREATED = frozenset(  # the section has the rest
    {"image", "command", "port", "volume", "network", "network_mode", "subnet"}
)
_FIELD_WIDTH = 16
_NARROW = 60  # on a narrower terminal values go below the names of their options
_INDENT = "      "


def plan_view(result: Mapping[str, Any], style: Style = PLAIN, *, next_step: str = "") -> str:
    """The answer of `plan` as text. `next_step` is a sentence that is shown if the plan changes something."""
    operations, pending = result["operations"], result["pending"]
    if not operations and not pending:
        # mistakes in the files are listed before, and their sections are not "as declared"
        return "\n".join([*([NOTHING] if result["ok"] else []), *notes_view(result, style)])
    # one block for each object, in the order of its first operation
    by_key: dict[str, list[Mapping[str, Any]]] = {}
    for operation in operations:
        by_key.setdefault(operation["key"], []).append(operation)
    blocks = (line for key, several in by_key.items() for line in _block(key, several, style))
    lines = [*blocks, *_entries(pending, style), *notes_view(result, style), ""]
    lines += wrapped(sum_of(result["summary"]), style, bold=True)
    lines += [line for step in steps(result, next_step) for line in wrapped(step, style)]
    return "\n".join(lines)


def _block(key: str, operations: list[Mapping[str, Any]], style: Style) -> Iterator[str]:
    # a block has the sign of its strongest operation: `-/+` must not hide behind a harmless update
    most = min((o["level"] for o in operations), key=_STRENGTH.index)
    sign, colour, _, _ = _LEVELS[most]
    verbs = list(dict.fromkeys(_VERBS.get(o["op"], o["op"]) for o in operations))
    what = " and ".join([", ".join(verbs[:-1]), verbs[-1]] if len(verbs) > 1 else verbs)
    first = operations[0]
    # the changed fields are reason enough
    why = "" if first["fields"] and most != "create" else f" ({first['cause']})"
    yield from _headed(sign, colour, f"{key}: {what}{why}", style)
    for operation in operations:
        fields = operation["fields"]
        # all fields of a new container are new: list only those that people look for
        if most == "create":
            fields = [field for field in fields if field["field"] in _TOLD_OF_CREATED]
        yield from field_lines(fields, style)
        if operation["besides"] and (operation is not first or fields):
            yield from _remark(operation["besides"], style)
        elif operation is not first and not operation["fields"] and most != "create":
            yield from _remark(f"{operation['op']}: {operation['cause']}", style)
        if operation["effect"]:
            yield from _remark(operation["effect"], style)


def _headed(sign: str, colour: str, text: str, style: Style) -> Iterator[str]:
    first, *rest = wrapped(text, style, indent=len(_INDENT) - 2)
    yield f"{style(colour, sign.rjust(3))} {first.lstrip()}"
    yield from rest


def _remark(text: str, style: Style) -> list[str]:
    return [style("dim", line) for line in wrapped(f"# {text}", style, indent=len(_INDENT))]


def field_lines(fields: Iterable[Mapping[str, Any]], style: Style) -> Iterator[str]:
    """A line for each changed option; for a list, one for each added or removed entry."""
    for field in fields:
        name, before, after = field["field"], field["before"], field["after"]
        hidden = field.get("hidden", [])
        if isinstance(before, list) or isinstance(after, list):
            yield from _list_lines(name, before or [], after or [], hidden, style)
        elif hidden:
            # both values are masked and would look equal
            yield from _named(name, ["changed (its value is not shown)"], style)
        elif before is None:
            yield from _named(name, [after], style)
        elif after is None:
            yield from _named(name, [f"{before} -> (unset)"], style)
        else:
            yield from _named(name, _changed(before, after, style), style)


def _changed(before: str, after: str, style: Style) -> list[str]:
    text = f"{before} -> {after}"
    room = style.width - len(_INDENT) - _FIELD_WIDTH - 2 if style.width else 0
    return [text] if not room or len(text) <= room else [f"- {before}", f"+ {after}"]


def _list_lines(
    name: str, before: list[str], after: list[str], hidden: list[str], style: Style
) -> Iterator[str]:
    gone = [f"- {item}" for item in before if item not in after]
    new = [f"+ {item}" for item in after if item not in before]
    if name == "env":  # the names are enough
        parts = {
            "changed": hidden,
            "added": [item[2:].partition("=")[0] for item in new],
            "removed": [item[2:].partition("=")[0] for item in gone],
        }
        told = [f"{word} {', '.join(names)}" for word, names in parts.items() if names]
        yield from _named(name, ["; ".join(told)], style)
        return
    if (len(gone), len(new)) == (1, 1) and not hidden:
        yield from _named(name, _changed(gone[0][2:], new[0][2:], style), style)
        return
    if not before and len(new) == 1:
        new = [new[0][2:]]
    moved = ["the order changed"] if not gone and not new and not hidden else []
    secret = [f"changed {', '.join(hidden)} (values are not shown)"] if hidden else []
    yield from _named(name, [*gone, *new, *secret, *moved], style)


def _named(name: str, values: Iterable[str], style: Style) -> Iterator[str]:
    shown = [plain(value) for value in values]
    # below 60 columns there is no room for names and values side by side
    if style.width and style.width < _NARROW:
        yield f"{_INDENT}{name}"
        for value in shown:
            yield from (
                _signed(line, value, style) for line in wrapped(value, style, indent=len(_INDENT) + 2)
            )
        return
    indent = len(_INDENT) + max(_FIELD_WIDTH, len(name) + 1)
    for number, value in enumerate(shown):
        first, *rest = wrapped(value, style, indent=indent)
        head = f"{_INDENT}{name}".ljust(indent) if number == 0 else " " * indent
        yield _signed(f"{head}{first.lstrip()}", value, style)
        yield from (_signed(line, value, style) for line in rest)


def _signed(line: str, value: str, style: Style) -> str:
    return style({"+ ": "good", "- ": "bad"}.get(value[:2], ""), line)


def _entries(pending: Iterable[Mapping[str, Any]], style: Style) -> Iterator[str]:
    for entry in pending:
        waits = entry["state"] in _WAITS
        colour = "bad" if entry["level"] == "error" and not waits else "busy"
        text = f"{entry['key']}: {_state(entry)}: {entry['message']}"
        yield from _headed("..." if waits else "!", colour, text, style)
        if entry.get("output"):
            yield f"{_INDENT}it printed last:"
            yield from (f"  {line}" for line in output_lines(entry["output"]))


def notes_view(result: Mapping[str, Any], style: Style) -> list[str]:
    """Notes about objects that are as declared."""
    found: list[str] = []
    for note in result["notes"]:
        found += _headed("i", "dim", f"{note['key']}: {_state(note)}: {note['message']}", style)
    return found


def _state(entry: Mapping[str, Any]) -> str:
    if entry["state"] == "then":
        return f"then {entry['op']}"
    if entry["state"] == "retry" and "retry_in" in entry:
        return f"retry in {math.ceil(entry['retry_in'])} s"
    return str(entry["state"])


def sum_of(summary: Mapping[str, int]) -> str:
    """`Plan: 2 to create, 1 to change in place, 1 to replace; 1 waiting`."""
    todo = [f"{summary[_key(n)]} {words[2]}" for n, words in _LEVELS.items() if summary.get(_key(n))]
    return f"Plan: {', '.join(todo) or 'nothing to change'}{_rest_of(summary)}"


def _key(level: str) -> str:
    return level.replace(" ", "_")


def _rest_of(summary: Mapping[str, int]) -> str:
    names = {"in_progress": "in progress", "waiting": "waiting", "errors": "in error"}
    rest = [f"{summary[name]} {words}" for name, words in names.items() if summary.get(name)]
    return f"; {', '.join(rest)}" if rest else ""


def steps(result: Mapping[str, Any], next_step: str) -> Iterator[str]:
    """What to do next, a sentence each."""
    states = {entry["state"]: entry for entry in reversed(result["pending"])}
    if "invalid" in states:
        yield "`ucidockd check` lists every mistake with its line."
    if "disabled" in states:
        yield "`uci set containers.@agent[0].enabled=1; uci commit containers` lets the agent work again."
    failed = next((states[s] for s in ("retry", "failed", "rolled back") if s in states), None)
    if failed is not None:
        name = Key.parse(failed["key"]).section
        logs = ""
        if failed.get("output"):  # a rolled back container is gone, and its last lines were shown
            logs = f"`ucidockd logs {name}` shows more; " if failed["state"] != "rolled back" else ""
        elif Key.parse(failed["key"]).kind == "container":
            logs = f"`ucidockd logs {name} --failed` shows what its container printed; "
        yield f"{logs}`ucidockd reconcile` tries again at once."
    if "held" in states:
        yield "`ucidockd reconcile` undoes manual actions."
    if result["operations"] and next_step:
        yield next_step


# results


def done_words(counts: Mapping[str, int], *, failed: int, skipped: int, pending: Mapping[str, int]) -> str:
    """`3 created, 1 failed; 1 waiting`. `counts` has the number of objects by level."""
    done = [f"{counts[name]} {words[3]}" for name, words in _LEVELS.items() if counts.get(name)]
    done += [f"{failed} failed"] * bool(failed) + [f"{skipped} skipped"] * bool(skipped)
    return f"{', '.join(done) or 'nothing changed'}{_rest_of(pending)}"


def levels_done(operations: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Key -> the strongest operation on the object."""
    most: dict[str, str] = {}
    for operation in operations:
        level = operation["level"]
        most[operation["key"]] = min(most.get(operation["key"], level), level, key=_STRENGTH.index)
    return most


def entries_view(pending: Iterable[Mapping[str, Any]], style: Style) -> list[str]:
    """The objects that are not as declared, or not yet."""
    return list(_entries(pending, style))
