# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd start`, `stop`, `restart`, `pull` and `wait`, with the same meaning as LuCI's buttons.

A declared container is changed through its section in UCI, because the agent would undo a change on the engine. A
container without a section is changed on the engine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agent.cli.ask import (
    ContainerTarget,
    EngineApi,
    agent_socket,
    call,
    container_sections,
    created,
    targets,
    whole_status,
)
from agent.cli.main import sentence
from agent.cli.parser import runtime_options
from agent.errors import ConfigError, ConflictError, EngineError, UcidockdError
from agent.model.identity import Key
from agent.model.issues import plain
from agent.model.quantities import TRUE_WORDS
from agent.status.conditions import runs

LOOK_S = 0.2
_QUIET_S = 2.0  # a longer wait is explained while it lasts
TIMED_OUT = 5
_PACKAGE = "containers"
_NOTHING_TO_SYNC = ("notify", "backup")  # kinds of sections without an object on the engine
_TRIES = 5  # attempts while another process writes the file
# options to write into the section; "" deletes the option
_START: Mapping[str, str] = {"state": "", "enabled": ""}
_STOP: Mapping[str, str] = {"state": "stopped"}
_LOOK_S = 0.3
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
    engine = EngineApi(args)
    rows: list[dict[str, Any]] = []
    for target in targets(engine, args, args.names):
        try:
            # without a section, or with --once, nothing changes in UCI: only the engine is asked
            if not target.section or options is None or args.once:
                said = _on_engine(engine, args, target, action)
            else:
                said = _declared(engine, args, target, action, options)
            if not args.json:
                print(plain(said), flush=True)
        # continue with the others: a mistake in b must not keep `ucidockd stop a b c` from stopping c
        except UcidockdError as exc:
            said = ""
            error = sentence(exc, action)
            print(plain(f"ucidockd {action}: {target.asked}: {error}"), file=sys.stderr)
        rows.append({"name": target.asked, "ok": bool(said), "message": said or error})
    if args.json:
        print(json.dumps({"schema": 1, "containers": rows}, indent=1))
    return 0 if all(row["ok"] for row in rows) else 1


def _on_engine(engine: EngineApi, args: argparse.Namespace, target: ContainerTarget, action: str) -> str:
    try:
        response = engine.open("POST", f"/containers/{created(engine, target)}/{action}")
    except EngineError as exc:
        if exc.status != 404 or not target.section or engine.status is not None:
            raise
        why = (
            "has no container yet, and no agent runs that would create it: `ucidockd reconcile` does it once"
        )
        raise ConfigError(f"{target.asked} {why}") from exc
    response.read()
    if response.status == 304:
        return f"{target.asked} is {'running' if action == 'start' else 'stopped'} already"
    done = f"{target.asked} {_outcome(engine, target, action)}"
    if not target.section:
        return f"{done} (it is not declared)"
    if engine.status is None or not getattr(args, "once", False):
        return done
    return f"{done} {_HELD}"


def _declared(
    engine: EngineApi,
    args: argparse.Namespace,
    target: ContainerTarget,
    action: str,
    options: Mapping[str, str],
) -> str:
    changed = declare(args, target.section, options)
    if not changed:
        if engine.status is None:
            return _on_engine(engine, args, target, action)
        if action == "start" and target.resource and not runs(target.resource):
            # declared to run, but it does not: it was stopped with docker, has ended, or failed
            why = _reconcile(args, target.section)
            if why := why or settled(args, target.section, args.timeout, lambda: _runs(engine, target)):
                raise EngineError(f"{why}; see `ucidockd status`")
            return f"{target.asked} {_outcome(engine, target, action)}"
        return f"{target.asked} is declared {'running' if action == 'start' else 'stopped'} already"
    said = f"{changed} committed to {_PACKAGE}"
    if engine.status is None:
        try:
            _on_engine(engine, args, target, action)
        except ConfigError as exc:
            raise ConfigError(f"{said}, but {exc}") from exc
        except UcidockdError as exc:
            raise EngineError(f"{said}; no agent is running and the engine says: {exc}") from exc
        return f"{target.asked} {_DONE[action]} ({said})"
    try:
        why = settled(
            args, target.section, args.timeout, lambda: _runs(engine, target) is (action == "start")
        )
    except UcidockdError as exc:
        raise ConfigError(f"{said}, but not {_DONE[action]} yet: {exc}") from exc
    if why:
        raise ConfigError(f"{said}, but not {_DONE[action]} yet: {why}; see `ucidockd status`")
    return f"{target.asked} {_outcome(engine, target, action)} ({said})"


def _outcome(engine: EngineApi, target: ContainerTarget, action: str) -> str:
    """The outcome in words. A container that starts and ends at once has started, but does not run."""
    done = _DONE[action]
    if action == "stop":
        return done
    # a program that cannot run ends within a moment after its start
    time.sleep(_LOOK_S)
    try:
        state = engine.call("GET", f"/containers/{target.name}/json")["State"]
    except UcidockdError:
        return done  # the container removed itself: it was a job
    return f"{done}, and ended with exit code {state['ExitCode']}" if state["Status"] == "exited" else done


def _runs(engine: EngineApi, target: ContainerTarget) -> bool:
    """Asks the engine: status follows a moment later."""
    try:
        state = engine.call("GET", f"/containers/{target.name}/json")["State"]
    except UcidockdError as exc:
        if getattr(exc, "status", 0) == 404:
            return False  # not created, or being replaced
        raise
    return bool(state["Running"])


def _reconcile(args: argparse.Namespace, section: str) -> str:
    """Runs a pass, which retries failures and ends holds. Returns the error of this container, "" if there is none."""
    answer = call(agent_socket(args), "POST", "/v1/reconcile")
    failed = [f["error"] for f in answer["failed"] if f["key"] == Key("container", section)]
    return str(failed[0]) if failed else ""


def declare(args: argparse.Namespace, section: str, options: Mapping[str, str]) -> str:
    """Commits options of a section as `uci set` and `uci delete` would. Returns the changes in words, "" if there are none.

    Changes that others have staged stay staged. Raises ConfigError, ConflictError.
    """
    from agent.files.uci_store import TextUciStore, load_for_edit
    from agent.uci import edit

    given = runtime_options(args)
    store = TextUciStore(config_dir=given.config_dir, override_dir=given.override_dir)
    # if another process writes the file meanwhile, its change is kept: ours is repeated on the new file
    for left in reversed(range(_TRIES)):
        package, content_hash = load_for_edit(store, _PACKAGE)
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
            elif old is not None and not (name == "enabled" and old.value in TRUE_WORDS):
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


# pull


def pull(args: argparse.Namespace) -> int:
    """Pulls the images of sections, or images by name."""
    engine = EngineApi(args)
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
    """The images without duplicates, in the order of the command line. Raises ConfigError."""
    from agent.files.uci_store import TextUciStore

    given = runtime_options(args)
    store = TextUciStore(config_dir=given.config_dir, override_dir=given.override_dir)
    declared: dict[str, str] = {}
    names = container_sections(args)
    # a name may be a section, a Docker name or an image: the file says which image a section has
    if names:
        for section in store.load(_PACKAGE).sections:
            image = section.get("image")
            if section.name in names and image is not None:
                declared[section.name] = declared[names[section.name]] = str(image.value)
    if not args.names and not declared:
        raise ConfigError("no container section is declared: name an image, as in `ucidockd pull nginx:1.27`")
    # several sections with one image need a single pull
    return list(dict.fromkeys(declared.get(name, name) for name in args.names or declared))


def _pull(engine: EngineApi, args: argparse.Namespace, image: str) -> None:
    from agent.api.jobs.job_specs import parse_job
    from agent.files.config import load

    loaded = load(runtime_options(args))
    # find the login for the registry as the agent does, so that `ucidockd pull` needs no `docker login`
    spec = parse_job({"kind": "pull", "image": image}, (loaded.desired or loaded.readable).auths)
    response = engine.open("POST", spec.path, dict(spec.query), headers=dict(spec.headers))
    report = _Report(image, as_json=args.json)
    for line in response:
        step = json.loads(line)
        # the engine answers 200 before it starts: a failed pull is a line of the stream
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


# wait, and how start and stop wait for the agent


def wait(args: argparse.Namespace) -> int:
    """Waits until the sections are in sync, or the containers healthy."""
    engine = EngineApi(args)
    if args.what == "healthy":
        # first, because the agent may not have read the last commit yet
        if engine.status is not None:
            if why := catch_up(args, args.timeout):
                return _told(args, {"configuration": why})
            engine.refresh_status()
        targets(engine, args, args.names)  # fail now for an unknown name instead of waiting for it

        def unhealthy() -> dict[str, str]:
            engine.refresh_status()  # each time, because a container may be created or replaced during the wait
            found = {
                target.asked: _why_unhealthy(engine, target) for target in targets(engine, args, args.names)
            }
            return {name: why for name, why in found.items() if why}

        return _told(args, _until(args.timeout, unhealthy))
    if engine.status is None:
        raise ConfigError(
            f"no agent answers on {agent_socket(args)}, so nothing brings the sections in sync; start it with"
            " `/etc/init.d/ucidockd start`, or use `ucidockd reconcile`"
        )
    found = targets(engine, args, args.names)
    foreign = next((t.asked for t in found if not t.section), None)
    if foreign is not None:
        raise ConfigError(
            f"{foreign} is not declared, so it is never in sync; `--for healthy` waits for its health"
        )
    keys = [Key("container", t.section) for t in found]
    # otherwise the status could still describe the files before the last commit
    if why := catch_up(args, args.timeout):
        return _told(args, {"configuration": why})
    looks = _looks(args)
    return _told(args, _until(args.timeout, lambda: out_of_sync(next(looks), keys)))


def _until(seconds: float, look: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Waits at most `seconds`; returns what is still missing then: name -> reason."""
    end = time.monotonic() + seconds
    while (missing := look()) and time.monotonic() < end:
        time.sleep(LOOK_S)
    return missing


def _told(args: argparse.Namespace, missing: dict[str, str]) -> int:
    if args.json:
        print(json.dumps({"schema": 1, "ok": not missing, "missing": missing}, indent=1))
    elif not missing:
        print("in sync" if args.what == "in-sync" else "healthy")
    else:
        print(f"ucidockd wait: not {args.what} after {args.timeout:g} s:", file=sys.stderr)
        for name, why in missing.items():
            print(plain(f"  {name}: {why}"), file=sys.stderr)
    return TIMED_OUT if missing else 0


def generation(args: argparse.Namespace) -> str:
    """The agent's word for the configuration as it is committed now; "" if a file cannot be read."""
    import hashlib

    from agent.files.uci_store import TextUciStore
    from agent.uci.decode import PACKAGES

    options = runtime_options(args)
    store = TextUciStore(config_dir=options.config_dir, override_dir=options.override_dir)
    try:
        # computed as in the agent (`files.config`): equal words mean that the agent has read the committed files
        hashes = "".join(store.content_hash(name) for name in PACKAGES)
    except UcidockdError:
        return ""
    return hashlib.sha256(hashes.encode()).hexdigest()[:12]


def _looks(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields the current status each time."""
    status = None
    while True:
        yield (status := whole_status(agent_socket(args), status))


def out_of_sync(status: dict[str, Any], keys: Sequence[str]) -> dict[str, str]:
    """The resources (of `keys`, or of all) that differ from the agent's configuration: key -> reason."""
    if status["agent"].get("config") == "Invalid":
        issue = next(iter(status["agent"].get("config_issues", ())), "")
        raise ConfigError(f"the configuration cannot be read: {issue}; `ucidockd check` lists every mistake")
    found = {r["key"]: r for r in status["resources"] if not keys or r["key"] in keys}
    missing = {key: "the agent does not know it" for key in keys if key not in found}
    return missing | {key: why for key, resource in found.items() if (why := _why_not(resource))}


def catch_up(args: argparse.Namespace, seconds: float) -> str:
    """Waits until the status describes the committed files. Returns "", or the reason if the time is over.

    Raises UcidockdError if the agent or the engine does not answer.
    """
    end, wanted = time.monotonic() + seconds, generation(args)
    while wanted:
        agent = call(agent_socket(args), "GET", "/v1/status?limit=1", timeout_s=10)["agent"]
        if agent.get("config") == "Invalid" or agent.get("desired_generation") == wanted:
            break
        if time.monotonic() > end:
            return "the agent has not read the configuration yet"
        time.sleep(LOOK_S)
    call(agent_socket(args), "GET", "/v1/plan")  # answered when the pass that read the files has planned
    return ""


def _why_not(resource: dict[str, Any]) -> str:
    if resource["kind"] in _NOTHING_TO_SYNC:
        return ""
    synced = next((c for c in resource["conditions"] if c["type"] == "Synced"), None)
    if synced is not None and synced["reason"] == "Grace":
        return ""  # its section was removed: it is stopped, and deleted later
    if synced is None or not synced["status"]:
        told = next((c for c in resource["conditions"] if c["type"] == resource["verdict"]), synced)
        return str(told["message"] or told["reason"]) if told else "not looked at yet"
    return ""


def settled(args: argparse.Namespace, section: str, seconds: float, reached: Callable[[], bool]) -> str:
    """Waits until the agent has applied a commit to one container, or until it is `reached`.

    Returns "", or the reason why neither came.
    """
    begin, key = time.monotonic(), Key("container", section)
    if why := catch_up(args, seconds):
        return why
    told, is_idle, looks = "", False, _looks(args)
    while missing := out_of_sync(status := next(looks), [key]):
        # a section whose last change was rolled back is not in sync, and is started and stopped nevertheless
        if reached():
            return ""
        why = next(iter(missing.values()))
        waited = time.monotonic() - begin
        # An error ends the wait at once, unless work is going on. A missing disk or image may still come: explain the
        # wait, and let the user decide.
        is_error = any(r["key"] == key and r["level"] == "error" for r in status["resources"])
        if waited > seconds or (is_error and is_idle):
            return why
        is_idle = False
        if is_error:
            plan = call(agent_socket(args), "GET", "/v1/plan")
            coming = {operation["key"] for operation in plan["operations"]}
            coming |= {entry["key"] for entry in plan["pending"] if entry["state"] == "in progress"}
            is_idle = key not in coming
            if is_idle:  # look once more: the work may have ended since the last look
                continue
        if waited > _QUIET_S and why != told:
            told = why
            print(plain(f"{section}: {why}; Ctrl-C ends only this command"), file=sys.stderr, flush=True)
        time.sleep(LOOK_S)
    return ""


def _why_unhealthy(engine: EngineApi, target: ContainerTarget) -> str:
    synced = next((c for c in target.resource.get("conditions", ()) if c["type"] == "Synced"), None)
    if target.resource and not target.ref:
        return f"it has no container yet: {_why_not(target.resource) or 'it is not declared to run'}"
    if synced is not None and not synced["status"] and synced["reason"] == "Pending":
        # the running container is about to be replaced
        return str(synced["message"] or "a change is in progress")
    try:
        state = engine.call("GET", f"/containers/{created(engine, target)}/json")["State"]
    except UcidockdError as exc:  # from the agent, or from the engine
        if getattr(exc, "status", 0) == 404 and target.section and engine.status is not None:
            return "its container is being replaced"
        raise
    health = state.get("Health", {}).get("Status", "")
    if not state["Running"]:
        return f"it does not run ({state['Status']}, exit code {state['ExitCode']})"
    if not health:
        raise ConfigError(f"{target.asked} has no health check: add `option health_cmd` to its section")
    return "" if health == "healthy" else f"its health is {health}"
