# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd wait`, and the waiting of `start` and `stop` for the agent."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from agent.cli.agent_client import call, whole_status
from agent.cli.ask import Engine, Target, agent_socket, created, runtime_options, targets
from agent.errors import ConfigError, UcidockdError
from agent.model.issues import plain

LOOK_S = 0.2
TIMED_OUT = 5


def wait(args: argparse.Namespace) -> int:
    """Until the sections are in sync, or the containers healthy."""
    engine = Engine(args)
    if args.what == "healthy":
        found = targets(engine, args, args.names)
        return _told(args, _until(args.timeout, lambda: _unhealthy(engine, found)))
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
    keys = [f"container:{t.section}" for t in found]
    if why := catch_up(args, args.timeout):
        return _told(args, {"configuration": why})
    return _told(args, _until(args.timeout, lambda: out_of_sync(args, keys)))


def _until(seconds: float, look: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What is still missing when the time is over: name -> why."""
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
    """What the agent calls the configuration as it is committed now, "" where a file cannot be read."""
    import hashlib

    from agent.files.config import PACKAGES
    from agent.files.uci_store import TextUciStore

    options = runtime_options(args)
    store = TextUciStore(config_dir=options.config_dir, override_dir=options.override_dir)
    try:
        hashes = "".join(store.content_hash(name) for name in PACKAGES)
    except UcidockdError:
        return ""
    return hashlib.sha256(hashes.encode()).hexdigest()[:12]


def out_of_sync(args: argparse.Namespace, keys: Sequence[str]) -> dict[str, str]:
    """What is not as the agent's configuration says, of these resources or of all: key -> why."""
    status = whole_status(agent_socket(args))
    if status["agent"].get("config") == "Invalid":
        issue = next(iter(status["agent"].get("config_issues", ())), "")
        raise ConfigError(f"the configuration cannot be read: {issue}; `ucidockd check` lists every mistake")
    found = {r["key"]: r for r in status["resources"] if not keys or r["key"] in keys}
    missing = {key: "the agent does not know it" for key in keys if key not in found}
    return missing | {key: why for key, resource in found.items() if (why := _why_not(resource))}


def catch_up(args: argparse.Namespace, seconds: float) -> str:
    """Waits until the status is about the files as they are committed now; "" then, else what is in the way.

    Raises UcidockdError where the engine is away.
    """
    end, wanted = time.monotonic() + seconds, generation(args)
    while wanted:
        agent = call(agent_socket(args), "GET", "/v1/status?limit=1", timeout_s=10)["agent"]
        if agent.get("config") == "Invalid" or agent.get("desired_generation") == wanted:
            break
        if time.monotonic() > end:
            return "the agent has not read the configuration yet"
        time.sleep(LOOK_S)
    call(agent_socket(args), "GET", "/v1/plan")  # the pass that read it has planned when this is answered
    return ""


def _why_not(resource: dict[str, Any]) -> str:
    synced = next((c for c in resource["conditions"] if c["type"] == "Synced"), None)
    if synced is None or not synced["status"]:
        told = next((c for c in resource["conditions"] if c["type"] == resource["verdict"]), synced)
        return str(told["message"] or told["reason"]) if told else "not looked at yet"
    return ""


def settled(args: argparse.Namespace, section: str, seconds: float) -> str:
    """Waits until the agent has carried a commit out for one container; "" when it has, else what is in the way."""
    end = time.monotonic() + seconds
    if why := catch_up(args, seconds):
        return why
    while missing := out_of_sync(args, [f"container:{section}"]):
        resources = whole_status(agent_socket(args))["resources"]
        level = next((r["level"] for r in resources if r["key"] == f"container:{section}"), "")
        if level == "error" or time.monotonic() > end:
            return next(iter(missing.values()))
        time.sleep(LOOK_S)
    return ""


def _unhealthy(engine: Engine, found: Sequence[Target]) -> dict[str, str]:
    missing = {}
    for target in found:
        state = engine.call("GET", f"/containers/{_ref(engine, target)}/json")["State"]
        health = state.get("Health", {}).get("Status", "")
        if not state["Running"]:
            missing[target.asked] = f"it does not run ({state['Status']}, exit code {state['ExitCode']})"
        elif not health:
            raise ConfigError(f"{target.asked} has no health check: add `option health_cmd` to its section")
        elif health != "healthy":
            missing[target.asked] = f"its health is {health}"
    return missing


def _ref(engine: Engine, target: Target) -> str:
    """The container that has the name now: a swap makes another one."""
    return target.name if target.ref else created(engine, target)
