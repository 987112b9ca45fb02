# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd plan`, `reconcile`, `update` and `rollback`: shows what a pass would do, and requests passes.

A plan or result is drawn from the JSON of `agent.plan.description`, which HTTP and ubus send, to the width of the
terminal: a block for each object with its changed options, a sum, and what to do next.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from agent.cli.ask import agent_socket, ask_or_do, call
from agent.cli.main import sentence
from agent.cli.output import PLAIN, Style, agreed, columns, output_lines, print_issues, wrapped
from agent.cli.system import packages_of
from agent.errors import UcidockdError
from agent.model.identity import Key
from agent.model.issues import GivenConfig, plain

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


def plan(args: argparse.Namespace) -> int:
    """Shows what would be done."""
    if args.staged or args.files:
        texts, paths = packages_of(args.files)
        body = {"staged": args.staged, "packages": texts, "paths": paths}
        given = GivenConfig(texts=texts, paths=paths, staged=args.staged)
        result = ask_or_do(
            args,
            ("POST", "/v1/plan"),
            lambda single: {**single.plan(given), "alone": True},
            body,
            changes=False,
        )
    else:
        result = ask_or_do(
            args, ("GET", "/v1/plan"), lambda single: {**single.plan(), "alone": True}, changes=False
        )
    alone = result.pop("alone", False)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print_issues(result["issues"])
        text = plan_view(result, Style.of(sys.stdout), next_step=_next_step(args, alone=alone))
        if text:
            print(text)
    if not result["ok"]:
        return 1
    # waiting work needs another pass: a script that waits for 0 must call again
    undone = result["operations"] or any(entry["level"] == "waiting" for entry in result["pending"])
    return 4 if args.exit_code and undone else 0


def _next_step(args: argparse.Namespace, *, alone: bool) -> str:
    if args.files:
        return "This is a preview: nothing changes before the file is committed."
    if args.staged:
        return (
            "`uci commit` applies this."
            if not alone
            else "`uci commit`, then `ucidockd reconcile` apply this."
        )
    if alone:
        return "`ucidockd reconcile` applies this."
    return "The agent does this by itself; `ucidockd reconcile` waits for it."


def reconcile(args: argparse.Namespace) -> int:
    """Applies the configuration now, shows each step, and waits until it is done."""
    settle_s = min(args.settle, 60)
    request = ("POST", f"/v1/reconcile?settle={settle_s}")
    if args.json:
        result = ask_or_do(args, request, lambda single: single.reconcile(settle_s=settle_s))
        print(json.dumps(result, indent=1))
        return 0 if result["ok"] else 1
    from agent.cli.main import INTERRUPTED
    from agent.cli.view.progress import ProgressView, shown_while

    progress = ProgressView(sys.stdout)

    def interrupted(finishing: list[str], left: list[str]) -> None:
        progress.close()
        text = "pulls are cancelled."
        if finishing:
            text += f" Being finished or undone, so that nothing is left half done: {_some(finishing)} (Ctrl-C again"
            text += " leaves that to the next `ucidockd reconcile`)."
        if left:
            text += f" Not begun: {_some(left)}."
        _say(text)

    try:
        # the request is answered only at the end; the status stream shows what happens meanwhile
        with shown_while(agent_socket(args), progress):
            result = ask_or_do(
                args,
                request,
                lambda single: single.reconcile(progress.feed, interrupted, settle_s=settle_s),
            )
    except KeyboardInterrupt:
        _say_it_continues(progress.close())
        return INTERRUPTED
    progress.close()
    print_issues(result["issues"])
    # a pass without work is reported in one line
    if not any(result[part] for part in ("operations", "failed", "pending")) and result["ok"]:
        print("\n".join([NOTHING, *notes_view(result, Style.of(sys.stdout))]))
    else:
        print("\n".join(progress.outcome(result)))
        for step in steps(result, ""):
            print("\n".join(wrapped(step, Style.of(sys.stdout))))
    if result.get("interrupted"):
        return INTERRUPTED
    return 0 if result["ok"] else 1


_SHOWN = 5


def _some(names: list[str]) -> str:
    """`a, b and 55 more`, because sixty names would fill the screen."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _say(text: str) -> None:
    said = wrapped(f"ucidockd: interrupted; {text}", Style.of(sys.stderr))
    # flushed, because a second Ctrl-C may end the process
    print("\n".join(said), file=sys.stderr, flush=True)


def _say_it_continues(under_way: list[str]) -> None:
    what = f" with {_some(under_way)}" if under_way else ""
    _say(
        f"the agent continues{what}. Nothing was undone: `ucidockd status --watch` follows it, and a section that you"
        " disable or delete is given up."
    )


def update(args: argparse.Namespace) -> int:
    """Updates containers to the newest images."""
    if args.check:
        return _check(args)
    return _renew(args, args.names, back=False) if args.names else _all(args)


def rollback(args: argparse.Namespace) -> int:
    """Takes a container back to its previous image."""
    return _renew(args, [args.name], back=True, with_data=args.with_data)


def _check(args: argparse.Namespace) -> int:
    """Shows what registries have; pulls nothing."""
    found = call(agent_socket(args), "POST", "/v1/updates/check", body={"names": args.names})
    # the agent answers for all containers it knows: show only the requested ones
    rows = [
        row for row in found["containers"] if not args.names or {row["section"], row["name"]} & {*args.names}
    ]
    if args.json:
        print(json.dumps({"schema": 1, "containers": rows}, indent=1))
    else:
        table = [(r["section"], r["reference"], r["state"], r["digest"] or r["why"]) for r in rows]
        lines = columns(("SECTION", "IMAGE", "STATE", "IN THE REGISTRY"), table, Style.of(sys.stdout))
        print("\n".join(lines) if table else "No container was checked.")
    return 1 if any(row["state"] == "failed" for row in rows) else 0


def _all(args: argparse.Namespace) -> int:
    """Updates all containers with a newer image, after a confirmation."""
    try:
        call(agent_socket(args), "POST", "/v1/updates/check", body={"names": []})
    except UcidockdError as exc:  # a newer image that was already pulled can still be used
        print(
            plain(f"ucidockd update: registries were not asked: {sentence(exc, 'update')}"), file=sys.stderr
        )
    notes = call(agent_socket(args), "GET", "/v1/plan")["notes"]
    newer = {Key.parse(note["key"]).section: note["message"] for note in notes if note["state"] == "update"}
    if not newer:
        print(
            json.dumps({"schema": 1, "containers": [], "ok": True})
            if args.json
            else "No newer image is known; `ucidockd update --check` shows what the registries have."
        )
        return 0
    if args.yes:
        return _renew(args, list(newer), back=False)
    # without a question in JSON: it lists what is available, and --yes updates it
    if args.json:
        print(json.dumps({"schema": 1, "available": newer}, indent=1))
        return 0
    for section, message in newer.items():
        print("\n".join(wrapped(f"{section}: {message}", Style.of(sys.stdout))))
    if not sys.stdin.isatty():
        print("Nothing is updated yet; --yes updates these.", file=sys.stderr)
        return 0
    return _renew(args, list(newer), back=False) if agreed("Update these?") else 0


def _renew(args: argparse.Namespace, names: Sequence[str], *, back: bool, with_data: bool = False) -> int:
    request = ("POST", "/v1/rollback" if back else "/v1/update")
    body: dict[str, Any] = {"names": list(names)}
    if back:
        body = {"name": names[0]} | ({"with_data": True} if with_data else {})
    answer = ask_or_do(
        args, request, lambda single: single.renew(names, back=back, with_data=with_data), body
    )
    if args.json:
        print(json.dumps(answer, indent=1))
    else:
        _tell(answer["containers"], Style.of(sys.stdout))
    return 0 if answer["ok"] else 1


def _tell(rows: Iterable[Mapping[str, Any]], style: Style) -> None:
    for row in rows:
        # an unknown word counts as a failure: a newer agent may send words that this command does not know
        text = {
            "updated": f"updated from image {row['before']} to {row['image']}",
            "rolled back": f"taken back from image {row['before']} to {row['image']}; it stays on that until its section"
            " changes, or `ucidockd update` is run",
            "current": f"up to date, it runs image {row['image']}",
            "waiting": f"waits, and is done as soon as it can be: {row['message']}",
        }.get(row["outcome"], f"failed: {row['message']}; it runs image {row['image']} as before")
        colour = {"failed": "bad", "waiting": "busy", "current": ""}.get(row["outcome"], "good")
        print("\n".join(style(colour, line) for line in wrapped(f"{row['section']}: {text}", style)))
        if row["output"]:
            print(plain(f"{row['section']} printed last:"))
            print("\n".join(output_lines(row["output"])))
