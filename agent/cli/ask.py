# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command works with: the running agent, or without one this process."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from agent.cli.agent_client import NoAgentError, call
from agent.errors import ConfigError, UcidockdError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from agent.files.options import RuntimeOptions
    from agent.runtime.one_shot import Single

DEFAULT_SOCKET = "/var/run/ucidockd/agent.sock"
_FOLDERS = ("config_dir", "override_dir", "state_dir", "save_dir")
_ENGINE = {"docker_host": "DOCKER_HOST", "docker_cert_path": "DOCKER_CERT_PATH"}


def runtime_options(args: argparse.Namespace) -> RuntimeOptions:
    """What was given on the command line, else in docker's environment variables. Raises ConfigError."""
    from pathlib import Path

    from agent.files.options import RuntimeOptions

    given: dict[str, Any] = {name: Path(value) for name in _FOLDERS if (value := getattr(args, name, None))}
    for name, variable in _ENGINE.items():
        if value := getattr(args, name, None) or _from_environment(variable):
            given[name] = value
    for name in ("socket", "log_level", "ubus_socket"):
        if value := getattr(args, name, None):
            given[name] = value
    return RuntimeOptions(**given)


def _from_environment(variable: str) -> str:
    text = os.environ.get(variable, "")
    if not text or variable != "DOCKER_HOST":
        return text
    from agent.model.engine_address import parse_engine_address
    from agent.model.quantities import QuantityError

    try:
        return str(parse_engine_address(text))
    except QuantityError as exc:
        raise ConfigError(
            f"the environment variable DOCKER_HOST: {exc}; correct it, or `unset DOCKER_HOST`"
        ) from exc


def agent_socket(args: argparse.Namespace) -> str:
    """The control socket: as asked for, where it usually is, or where the agent section says."""
    if args.socket:
        return str(args.socket)
    if not os.path.exists(DEFAULT_SOCKET):
        from agent.files.uci_store import TextUciStore

        options = runtime_options(args)
        store = TextUciStore(config_dir=options.config_dir, override_dir=options.override_dir)
        try:
            sections = store.load("containers").sections
        except UcidockdError:
            return DEFAULT_SOCKET  # what is wrong with the configuration, `check` says
        said = (section.get("socket") for section in sections if section.type == "agent")
        return next((str(option.value) for option in said if option is not None), DEFAULT_SOCKET)
    return DEFAULT_SOCKET


def ask_or_do(
    args: argparse.Namespace,
    request: tuple[str, str],
    alone: Callable[[Single], dict[str, Any]],
    body: dict[str, Any] | None = None,
    *,
    changes: bool = True,
) -> dict[str, Any]:
    """The running agent's answer; without one we do it ourselves. `changes`: it may change something."""
    if not args.no_agent:
        try:
            check_options(args)
            answer: dict[str, Any] = call(agent_socket(args), *request, body=body)
            return answer
        except NoAgentError:
            pass
    import logging

    from agent.runtime.one_shot import Single

    logging.getLogger("agent").addHandler(logging.NullHandler())  # what it warns of, the answer tells
    answer = alone(Single(runtime_options(args)))
    if changes and any(entry["level"] == "waiting" for entry in answer.get("pending", ())):
        print("no agent is running: what waits needs another `ucidockd reconcile`", file=sys.stderr)
    return answer


def check_options(args: argparse.Namespace) -> None:
    """A running agent has its own folders and engine. Raises ConfigError where others are named."""
    asked = {
        name: (f"--{name.replace('_', '-')}", str(value))
        for name in (*_FOLDERS, *_ENGINE)
        if (value := getattr(args, name, None)) is not None
    }
    for name, variable in _ENGINE.items():
        if name not in asked and hasattr(args, name) and (value := _from_environment(variable)):
            asked[name] = (variable, value)
    if not asked:
        return
    agent = call(agent_socket(args), "GET", "/v1/status?limit=1", timeout_s=10)["agent"]
    for name, (option, wanted) in asked.items():
        has = agent.get("options", {}).get(name.replace("_", "-"), "")
        if _real(name, wanted) == _real(name, has) or (option == "DOCKER_CERT_PATH" and not has):
            continue  # docker's folder of certificates stands for nothing where the engine is a unix socket
        alone = f"; `ucidockd {args.command} --no-agent` asks no agent" if hasattr(args, "no_agent") else ""
        leave = "leave the option out" if option.startswith("--") else f"`unset {option}`"
        raise ConfigError(
            f"the agent on {agent_socket(args)} runs with --{name.replace('_', '-')} {has}, not {wanted}"
            f"{'' if option.startswith('--') else f' ({option})'}: {leave}, or name another agent's --socket{alone}"
        )


def _real(name: str, value: str) -> str:
    if name in _FOLDERS or name == "docker_cert_path":
        return os.path.realpath(value)
    if value.startswith("unix://"):
        return os.path.realpath(value.removeprefix("unix://"))
    return value
