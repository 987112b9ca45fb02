# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of a row in the table of commands, and the arguments that several commands share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Argument(NamedTuple):
    """An option; or a positional argument, if `flags` is a single word without a dash."""

    flags: tuple[str, ...]
    help: str
    settings: Mapping[str, Any]  # for argparse's add_argument

    @property
    def takes_value(self) -> bool:
        # argparse appends by default if an option has a value; switches name another action
        return bool(self.settings.get("action", "append") == "append")

    @property
    def metavar(self) -> str:
        if "choices" in self.settings:
            return "|".join(self.settings["choices"])
        return str(self.settings.get("metavar", self.flags[-1].lstrip("-").upper()))

    @property
    def head(self) -> str:
        """The option as help shows it: `-n, --tail N`."""
        if not self.flags[0].startswith("-"):
            return self.shown
        return ", ".join(self.flags) + (f" {self.metavar}" if self.takes_value else "")

    @property
    def shown(self) -> str:
        """A positional argument as a synopsis shows it."""
        return {"*": f"[{self.metavar} ...]", "+": f"{self.metavar} ...", "?": f"[{self.metavar}]"}.get(
            self.settings.get("nargs", ""), self.metavar
        )


def flag(*names: str, help: str, **settings: Any) -> Argument:  # noqa: A002 - argparse's word
    """An option without a value."""
    return Argument(names, help, {"action": "store_true", **settings})


def option(*names: str, help: str, metavar: str = "", **settings: Any) -> Argument:  # noqa: A002 - argparse's word
    """An option with a value."""
    return Argument(names, help, {**({"metavar": metavar} if metavar else {}), **settings})


def argument(metavar: str, *, help: str, dest: str, **settings: Any) -> Argument:  # noqa: A002 - argparse's word
    """A positional argument."""
    return Argument((dest,), help, {"metavar": metavar, **settings})


class Command(NamedTuple):
    """One row."""

    # In the order in which help shows it. All fields are data, so man page and completions can be written without
    # running a command.
    name: str  # may be two words
    group: str
    summary: str  # one sentence without its full stop, at most 60 letters
    description: str
    examples: tuple[tuple[str, str], ...]  # command line, what it does
    exit_codes: tuple[tuple[int, str], ...]
    handler: str
    arguments: tuple[Argument, ...] = ()
    options: tuple[Argument, ...] = ()
    common: tuple[str, ...] = ()  # keys of COMMON that the command uses; any other common option is an error
    rest: str = ""  # how help shows what follows the first argument; it is passed on as `args.rest`
    hint: str = ""  # the answer to one word or option too many
    words: Mapping[str, str] = {}  # options of docker's command -> what to write here

    def all_options(self) -> tuple[Argument, ...]:
        return (*self.options, *(COMMON[name] for name in self.common), HELP)


def _address(text: str) -> str:
    """A checked engine address. Raises argparse's error."""
    # Checked while the command line is parsed, before the command does anything. Imported here, because every command
    # loads the table and `status` has to start quickly on a router.
    from agent.model.addresses import parse_engine_address
    from agent.model.quantities import QuantityError

    try:
        return str(parse_engine_address(text))
    except QuantityError as exc:
        import argparse

        raise argparse.ArgumentTypeError(str(exc)) from exc


def number(text: str) -> int:
    # `int` would accept `1_000`, ` 7` and the digits of every script
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        import argparse

        raise argparse.ArgumentTypeError(f"`{text[:64]}` is not a whole number")
    return int(text)


def seconds(text: str) -> float:
    """A duration in seconds: 90, 90s, 2m."""
    import argparse

    from agent.model.quantities import QuantityError, parse_duration

    try:
        # here a plain number means seconds, while durations in UCI and docker have a unit
        return float(text) if text.isascii() and text.isdigit() else parse_duration(text) / 1e9
    except QuantityError as exc:
        raise argparse.ArgumentTypeError(f"`{text[:64]}` is not a duration such as 90s or 2m") from exc


def choice(*names: str, help: str, choices: tuple[str, ...], **settings: Any) -> Argument:  # noqa: A002
    """An option with one of a few values."""

    def check(text: str) -> str:  # argparse's own message does not suggest a similar value
        if text not in choices:
            import argparse
            import difflib

            near = difflib.get_close_matches(text[:32], choices, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise argparse.ArgumentTypeError(f"`{text[:64]}` is not one of {', '.join(choices)}{hint}")
        return text

    return Argument(names, help, {"choices": choices, "type": check, **settings})


HELP = flag("-h", "--help", help="show this help")
# the default is None, "not given", so that a running agent need not have the same value
COMMON: Mapping[str, Argument] = {
    "config-dir": option("--config-dir", metavar="DIR", help="UCI files (/etc/config)"),
    "override-dir": option(
        "--override-dir", metavar="DIR", help="UCI files that take precedence (/var/run/uci)"
    ),
    "save-dir": option("--save-dir", metavar="DIR", help="staged UCI changes (/tmp/.uci)"),
    "state-dir": option("--state-dir", metavar="DIR", help="what the agent keeps (/etc/ucidockd)"),
    "socket": option(
        "--socket", metavar="SOCKET", help="the agent's control socket (/var/run/ucidockd/agent.sock)"
    ),
    "docker-host": option(
        "--docker-host",
        metavar="ADDRESS",
        type=_address,
        help="the engine; DOCKER_HOST, else the agent section's, else unix:///var/run/docker.sock",
    ),
    "docker-cert-path": option(
        "--docker-cert-path",
        metavar="DIR",
        help="folder with ca.pem, cert.pem and key.pem for a tcp engine; else DOCKER_CERT_PATH",
    ),
    "json": flag("--json", help="print JSON"),
    "no-agent": flag("--no-agent", help="do it in this process, although an agent runs"),
}

FILES = ("config-dir", "override-dir")
ENGINE = ("docker-host", "docker-cert-path")
ALL = (*FILES, "save-dir", "state-dir", "socket", *ENGINE, "json")
EITHER = (*ALL, "no-agent")

DONE = (0, "done")
FAILED = (
    1,
    "an error; the message says which: no agent, no engine, no such container, a mistake in the configuration",
)
USAGE = (2, "the command line is wrong")
USUAL = (DONE, FAILED, USAGE)
NAME = argument("NAME", dest="name", help="a section, a Docker name or an id")
NAMES = argument("NAME", dest="names", nargs="+", help="a section, a Docker name or an id")
TIMEOUT = option("--timeout", metavar="TIME", type=seconds, default=60.0, help="how long to wait (60s)")
