# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd start`, `stop`, `restart` and `pull`, with the meaning of LuCI's buttons.

What a section declares is changed in UCI, since the agent would undo it on the engine. A container that is not declared is
changed on the engine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from agent.cli.ask import Engine, Target, agent_socket, container_sections, created, runtime_options, targets
from agent.cli.main import sentence
from agent.cli.wait import settled
from agent.errors import ConfigError, ConflictError, EngineError, UcidockdError
from agent.model.issues import plain

_PACKAGE = "containers"
_TRIES = 5  # while somebody else writes the file
# what UCI has to say; "": the option goes
_START: Mapping[str, str] = {"state": "", "enabled": ""}
_STOP: Mapping[str, str] = {"state": "stopped"}
_DONE = {"start": "started", "stop": "stopped", "restart": "restarted"}
_HELD = "until its section changes, `ucidockd reconcile` or a reboot"


def start(args: argparse.Namespace) -> int:
    """Starts containers, and declares that they run."""
    return _each(args, "start", _START)


def stop(args: argparse.Namespace) -> int:
    """Stops containers, and declares that they are stopped."""
    return _each(args, "stop", _STOP)


def restart(args: argparse.Namespace) -> int:
    """Restarts containers now; their sections stay as they are."""
    return _each(args, "restart", None)


def _each(args: argparse.Namespace, action: str, options: Mapping[str, str] | None) -> int:
    engine = Engine(args)
    failed = False
    for target in targets(engine, args, args.names):
        try:
            if not target.section or options is None or args.once:
                print(plain(_on_engine(engine, args, target, action)), flush=True)
            else:
                print(plain(_declared(engine, args, target, action, options)), flush=True)
        except UcidockdError as exc:
            failed = True
            print(plain(f"ucidockd {action}: {target.asked}: {sentence(exc, action)}"), file=sys.stderr)
    return 1 if failed else 0


def _on_engine(engine: Engine, args: argparse.Namespace, target: Target, action: str) -> str:
    response = engine.open("POST", f"/containers/{created(engine, target)}/{action}")
    response.read()
    if response.status == 304:
        return f"{target.asked} is {'running' if action == 'start' else 'stopped'} already"
    done = f"{target.asked} {_DONE[action]}"
    if not target.section:
        return f"{done} (it is not declared)"
    if engine.status is None or not getattr(args, "once", False):
        return done
    return f"{done} {_HELD}"


def _declared(
    engine: Engine, args: argparse.Namespace, target: Target, action: str, options: Mapping[str, str]
) -> str:
    changed = declare(args, target.section, options)
    if not changed:
        if engine.status is None:
            return _on_engine(engine, args, target, action)
        if action == "start" and target.resource and not _runs(target.resource):
            # it is to run and does not: it was stopped with docker, has ended, or failed
            if why := _reconcile(args, target.section) or settled(args, target.section, args.timeout):
                raise EngineError(f"{why}; see `ucidockd status`")
            return f"{target.asked} started"
        return f"{target.asked} is declared {'running' if action == 'start' else 'stopped'} already"
    said = f"{changed} committed to {_PACKAGE}"
    if engine.status is None:
        try:
            _on_engine(engine, args, target, action)
        except UcidockdError as exc:
            raise EngineError(f"{said}; no agent is running and the engine says: {exc}") from exc
        return f"{target.asked} {_DONE[action]} ({said})"
    try:
        why = settled(args, target.section, args.timeout)
    except UcidockdError as exc:
        raise ConfigError(f"{said}, but not {_DONE[action]} yet: {exc}") from exc
    if why:
        raise ConfigError(f"{said}, but not {_DONE[action]} yet: {why}; see `ucidockd status`")
    return f"{target.asked} {_DONE[action]} ({said})"


def _runs(resource: dict[str, Any]) -> bool:
    return any(c["type"] == "Running" and c["status"] for c in resource["conditions"])


def _reconcile(args: argparse.Namespace, section: str) -> str:
    """A pass that retries what failed and ends holds; what went wrong with one container, "" for nothing."""
    from agent.cli.agent_client import call

    answer = call(agent_socket(args), "POST", "/v1/reconcile")
    failed = [f["error"] for f in answer["failed"] if f["key"] == f"container:{section}"]
    return str(failed[0]) if failed else ""


def declare(args: argparse.Namespace, section: str, options: Mapping[str, str]) -> str:
    """Commits options of a section as `uci set` and `uci delete` would; the commands, "" where it says so already.

    What others have staged stays staged. Raises ConfigError, ConflictError.
    """
    from agent.files.uci_store import TextUciStore
    from agent.uci import edit

    given = runtime_options(args)
    store = TextUciStore(config_dir=given.config_dir, override_dir=given.override_dir)
    for left in reversed(range(_TRIES)):
        package, content_hash = store.load_with_hash(_PACKAGE)
        found = edit.find(package, section)
        if found is None:
            raise ConfigError(f"the section {section} is not in {store.source_path(_PACKAGE)}")
        staged, said = edit.stage(package), []
        for name, value in options.items():
            where, old = f"{_PACKAGE}.{section}.{name}", found.get(name)
            if value:
                if old is None or old.value != value:
                    staged = edit.set_value(staged, where, value)
                    said.append(f"`option {name} '{value}'`")
            elif old is not None and not (name == "enabled" and old.value in _TRUE):
                staged = edit.delete(staged, where)
                said.append(f"removal of `option {name}`")
        if not said:
            return ""
        try:
            store.commit(staged.package, expected=content_hash)
            break
        except ConflictError:
            if not left:
                raise
    return " and ".join(said)


_TRUE = frozenset({"1", "true", "yes", "on"})


# pull


def pull(args: argparse.Namespace) -> int:
    """Pulls the images of sections, or images by name."""
    engine = Engine(args)
    images = _images(args)
    failed = False
    for image in images:
        try:
            _pull(engine, args, image)
        except UcidockdError as exc:
            failed = True
            print(plain(f"ucidockd pull: {image}: {sentence(exc, 'pull')}"), file=sys.stderr)
    return 1 if failed else 0


def _images(args: argparse.Namespace) -> list[str]:
    """Without repetitions, in the order asked for. Raises ConfigError."""
    from agent.files.uci_store import TextUciStore

    given = runtime_options(args)
    store = TextUciStore(config_dir=given.config_dir, override_dir=given.override_dir)
    declared: dict[str, str] = {}
    names = container_sections(args)
    if names:
        for section in store.load(_PACKAGE).sections:
            image = section.get("image")
            if section.name in names and image is not None:
                declared[section.name] = declared[names[section.name]] = str(image.value)
    if not args.names and not declared:
        raise ConfigError("no container section is declared: name an image, as in `ucidockd pull nginx:1.27`")
    return list(dict.fromkeys(declared.get(name, name) for name in args.names or declared))


def _pull(engine: Engine, args: argparse.Namespace, image: str) -> None:
    from agent.api.jobs.job_specs import parse_job
    from agent.files.config import load

    loaded = load(runtime_options(args))
    spec = parse_job({"kind": "pull", "image": image}, (loaded.desired or loaded.readable).auths)
    response = engine.open("POST", spec.path, dict(spec.query), headers=dict(spec.headers))
    report = _Report(image, as_json=args.json)
    for line in response:
        step = json.loads(line)
        if "error" in step:
            raise EngineError(str(step["error"]))
        report.step(step)
    report.end()


class _Report:
    """The progress of a pull: one line on a terminal, only the outcome elsewhere."""

    def __init__(self, image: str, *, as_json: bool) -> None:
        import time

        from agent.apply.images import PullProgress

        self._image, self._as_json, self._last = image, as_json, ""
        self._is_terminal = sys.stderr.isatty() and not as_json
        self._progress = PullProgress(self._show, time.monotonic)

    def _show(self, percent: int) -> None:
        if self._is_terminal:
            sys.stderr.write(f"\r\x1b[K{plain(self._image)}: {percent} %")
            sys.stderr.flush()

    def step(self, step: dict[str, Any]) -> None:
        self._progress.step(step)
        if "progressDetail" not in step and "id" not in step:
            self._last = str(step.get("status", self._last))

    def end(self) -> None:
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K")
        said = self._last.removeprefix("Status: ")
        if self._as_json:
            print(json.dumps({"schema": 1, "image": self._image, "result": said}))
        else:
            print(plain(f"{self._image}: {said or 'pulled'}"), flush=True)
