# SPDX-License-Identifier: GPL-2.0-or-later
"""The one table of commands. Parser, help, man page, completions and docs/reference/commands.md are made from it.

A new command is a row here and a function `handler(args) -> exit code`, named as `module:function` and imported only when
the command is called. What an option's value becomes is in `args` under `dest`, as argparse does it; values stay text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

GROUPS = ("Configuration", "What runs", "Containers", "Data", "The agent and dockerd", "Help")


class Argument(NamedTuple):
    """An option, or a positional argument where `flags` is one word without a dash."""

    flags: tuple[str, ...]
    help: str
    settings: Mapping[str, Any]  # for argparse's add_argument

    @property
    def takes_value(self) -> bool:
        return bool(self.settings.get("action", "append") == "append")

    @property
    def metavar(self) -> str:
        if "choices" in self.settings:
            return "|".join(self.settings["choices"])
        return str(self.settings.get("metavar", self.flags[-1].lstrip("-").upper()))

    @property
    def head(self) -> str:
        """As help shows it: `-n, --tail N`."""
        if not self.flags[0].startswith("-"):
            return self.shown
        return ", ".join(self.flags) + (f" {self.metavar}" if self.takes_value else "")

    @property
    def shown(self) -> str:
        """A positional argument in a synopsis."""
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

    name: str  # may be two words
    group: str
    summary: str  # one sentence without its full stop, at most 60 letters
    description: str
    examples: tuple[tuple[str, str], ...]  # command line, what it does
    exit_codes: tuple[tuple[int, str], ...]
    handler: str
    arguments: tuple[Argument, ...] = ()
    options: tuple[Argument, ...] = ()
    common: tuple[str, ...] = ()  # of COMMON: only those that it uses, any other one is an error
    rest: str = ""  # how help shows what follows the first argument and is passed on as `args.rest`
    hint: str = ""  # what one word or option too many gets as an answer
    words: Mapping[str, str] = {}  # options of docker's command with what to write here

    def all_options(self) -> tuple[Argument, ...]:
        return (*self.options, *(COMMON[name] for name in self.common), HELP)


def _address(text: str) -> str:
    """An engine's address, checked. Raises argparse's error."""
    from agent.model.addresses import parse_engine_address
    from agent.model.quantities import QuantityError

    try:
        return str(parse_engine_address(text))
    except QuantityError as exc:
        import argparse

        raise argparse.ArgumentTypeError(str(exc)) from exc


def _one_of(*names: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in names:
            import argparse
            import difflib

            near = difflib.get_close_matches(text[:32], names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise argparse.ArgumentTypeError(f"`{text[:64]}` is not one of {', '.join(names)}{hint}")
        return text

    return check


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        import argparse

        raise argparse.ArgumentTypeError(f"`{text[:64]}` is not a whole number")
    return int(text)


def _seconds(text: str) -> float:
    """A duration in seconds: 90, 90s, 2m."""
    import argparse

    from agent.model.quantities import QuantityError, parse_duration

    try:
        return float(text) if text.isascii() and text.isdigit() else parse_duration(text) / 1e9
    except QuantityError as exc:
        raise argparse.ArgumentTypeError(f"`{text[:64]}` is not a duration such as 90s or 2m") from exc


def choice(*names_and_choices: Any, help: str, choices: tuple[str, ...], **settings: Any) -> Argument:  # noqa: A002
    """An option with one of a few values."""
    return Argument(names_and_choices, help, {"choices": choices, "type": _one_of(*choices), **settings})


HELP = flag("-h", "--help", help="show this help")
# None: not given, so that a running agent need not have the same
COMMON: Mapping[str, Argument] = {
    "config-dir": option("--config-dir", metavar="DIR", help="UCI files (/etc/config)"),
    "override-dir": option(
        "--override-dir", metavar="DIR", help="UCI files that win over those (/var/run/uci)"
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

_FILES = ("config-dir", "override-dir")
_ENGINE = ("docker-host", "docker-cert-path")
_ALL = (*_FILES, "save-dir", "state-dir", "socket", *_ENGINE, "json")
_EITHER = (*_ALL, "no-agent")

_DONE = (0, "done")
_FAILED = (
    1,
    "an error; the message says which: no agent, no engine, no such container, a mistake in the configuration",
)
_USAGE = (2, "the command line is wrong")
_USUAL = (_DONE, _FAILED, _USAGE)
_NAME = argument("NAME", dest="name", help="a section, a Docker name or an id")

CHECK = Command(
    name="check",
    group="Configuration",
    summary="Check the configuration and list every mistake",
    description=(
        "Reads /etc/config/containers and /etc/config/dockerd as they are committed, or the files that you name, and lists"
        " every mistake as `file:line: error: ...` or `warning`, in the order of their lines. Nothing is changed. It needs"
        " neither an agent nor an engine. It warns of host ports that something on this machine has; with --offline, as for"
        " a router's files on another machine, only the files count."
    ),
    examples=(
        ("ucidockd check", "Check what is committed."),
        ("ucidockd check --staged", "Check it as it would be after `uci commit`."),
        ("ucidockd check --strict ./containers", "Check a file, and fail on warnings too."),
        ("uci export containers | ucidockd check -", "Check what another program writes."),
        (
            "ucidockd check --offline --strict router/containers",
            "In CI: whatever runs on this machine does not count.",
        ),
    ),
    exit_codes=((0, "no errors"), (1, "there are errors, with --strict also warnings"), _USAGE),
    handler="agent.cli.system:check",
    arguments=(
        argument(
            "FILE",
            dest="files",
            nargs="*",
            help="file to check, `-` is the standard input; one called `dockerd` is dockerd's configuration",
        ),
    ),
    options=(
        flag("--strict", help="fail on warnings too"),
        flag("--offline", help="do not look at what uses ports on this machine"),
        flag("--staged", help="as if `uci commit` had been run"),
    ),
    common=(*_FILES, "save-dir", "json"),
)
PLAN = Command(
    name="plan",
    group="Configuration",
    summary="Show what would be done, and why",
    description=(
        "Compares the configuration with the engine and shows what a reconcile would do, what waits, and why. Nothing is"
        " changed."
    ),
    examples=(
        ("ucidockd plan", "What would be done now."),
        ("ucidockd plan --staged", "What would be done after `uci commit`."),
        ("ucidockd plan ./containers", "What would be done if this file were committed."),
        ("ucidockd plan --exit-code", "For scripts: 0 means that nothing is left to do."),
    ),
    exit_codes=(
        (0, "fine; with --exit-code: nothing to do"),
        (1, "an error: a mistake in the configuration, a conflict, a failed change, no engine"),
        _USAGE,
        (4, "with --exit-code: there is something to do, in progress or waiting"),
    ),
    handler="agent.cli.plan:plan",
    words={
        "--detailed-exitcode": "`--exit-code` ends with 4 when there is something to do",
        "-out": "a plan is not stored: `ucidockd reconcile` makes a new one",
    },
    arguments=(
        argument(
            "FILE",
            dest="files",
            nargs="*",
            help="as if this were the committed file; one called `dockerd` is dockerd's configuration",
        ),
    ),
    options=(
        flag("--exit-code", help="exit with 4 when there is something to do"),
        flag("--staged", help="as if `uci commit` had been run"),
    ),
    common=_EITHER,
)
RECONCILE = Command(
    name="reconcile",
    group="Configuration",
    summary="Apply the configuration now and wait until it is done",
    description=(
        "Makes the engine match the configuration. The agent does so by itself after each `uci commit`; this does it now,"
        " retries what failed, ends what `--once` and docker's own commands changed, and waits for the outcome. Without an"
        " agent it is done in this process."
    ),
    examples=(("uci commit containers; ucidockd reconcile", "Apply a change and see the outcome."),),
    exit_codes=(
        (0, "everything that can be done is done"),
        (1, "something failed or is in conflict, or there is no engine"),
        _USAGE,
        (3, "another agent is running"),
    ),
    handler="agent.cli.plan:reconcile",
    hint="it applies the whole configuration; `ucidockd start NAME` tries one container again",
    options=(
        option(
            "--settle",
            metavar="SECONDS",
            type=_number,
            default=2,
            help="how long a started container has to run to count as started (2, at most 60)",
        ),
    ),
    common=_EITHER,
)
DIFF = Command(
    name="diff",
    group="Configuration",
    summary="Compare a section with what the engine shows",
    description="Shows each field of a container section that differs from what runs, and what would be done about it.",
    examples=(("ucidockd diff web", "What differs for the container of section `web`."),),
    exit_codes=_USUAL,
    handler="agent.cli.container:diff",
    arguments=(_NAME._replace(help="a container section, or its Docker name"),),
    common=_EITHER,
)
DESCRIBE = Command(
    name="describe",
    group="What runs",
    summary="Show everything about one section",
    description=(
        "Shows each option of a container section and where its value comes from (section, image or default), its"
        " conditions in sentences, the last operations with causes, mounts, networks with addresses, who can reach"
        " its ports, and its image."
    ),
    examples=(("ucidockd describe web", "All that is known of section `web`."),),
    exit_codes=_USUAL,
    handler="agent.cli.describe:describe",
    arguments=(_NAME._replace(help="a container section, or its Docker name"),),
    common=_EITHER,
)
HISTORY = Command(
    name="history",
    group="Configuration",
    summary="Show the settings that a section had, or go back to them",
    description=(
        "Shows the last versions of a container section that were applied, newest first, and which options each changed."
        " With --revert the settings of a version are written to /etc/config/containers again; the agent applies them as any"
        " other change. Volumes keep what is in them."
    ),
    examples=(
        ("ucidockd history web", "The versions of section `web`."),
        ("ucidockd history web --revert 3", "Use the settings of version 3 again."),
    ),
    exit_codes=_USUAL,
    handler="agent.cli.container:history",
    arguments=(_NAME._replace(help="a container section, or its Docker name"),),
    options=(option("--revert", metavar="VERSION", type=_number, help="write this version as the section"),),
    common=_EITHER,
)
ADOPT = Command(
    name="adopt",
    group="Configuration",
    summary="Write the section of a container made with docker",
    description=(
        "Shows a container that was created with docker as a section of /etc/config/containers, with its networks and"
        " volumes. With --commit the sections are written, and the next reconcile takes the container over."
    ),
    examples=(
        ("ucidockd adopt nginx", "Show the section."),
        ("ucidockd adopt nginx --section web --commit", "Write it as section `web`."),
    ),
    exit_codes=_USUAL,
    handler="agent.cli.container:adopt",
    arguments=(_NAME._replace(help="Docker name or id"),),
    options=(
        option(
            "--section", metavar="SECTION", default="", help="name of the section (made of the Docker name)"
        ),
        flag("--commit", help="write it; without, it is only shown"),
        flag("--show-secrets", help="show environment values"),
    ),
    common=_EITHER,
)
_IMPORT = (
    option("--folder", metavar="DIR", help="the folder that relative paths start from"),
    flag("--commit", help="write the sections; without, they are only shown"),
)
IMPORT_RUN = Command(
    name="import run",
    group="Configuration",
    summary="Turn a docker run line into sections",
    description=(
        "Shows what a `docker run` line, or several with `docker network create` and `docker volume create`, would be as"
        " sections of /etc/config/containers, and what becomes of each flag: taken, changed, left out or unknown. Without a"
        " line the text is read from standard input."
    ),
    examples=(
        ("ucidockd import run -- docker run -d -p 8080:80 nginx", "Show the section."),
        ("ucidockd import run --commit < run.sh", "Write the sections of the lines in a file."),
    ),
    exit_codes=_USUAL,
    handler="agent.cli.transcribe:import_run",
    arguments=(argument("WORD", dest="word", nargs="?", help="the first word of the line: docker"),),
    options=_IMPORT,
    common=(*_FILES, "json"),
    rest="WORD ...",
    hint="docker's options follow `--`, as in `ucidockd import run -- docker run -d -p 8080:80 nginx`",
)
IMPORT_COMPOSE = Command(
    name="import compose",
    group="Configuration",
    summary="Turn a compose file into sections",
    description=(
        "Shows what a compose file would be as sections of /etc/config/containers, and what becomes of each key: taken,"
        " changed, left out or unknown. The project becomes a stack. Variables come from the .env file beside it."
    ),
    examples=(
        ("ucidockd import compose docker-compose.yml", "Show the sections."),
        ("ucidockd import compose compose.yml --profile debug --commit", "Write them, with a profile."),
    ),
    exit_codes=_USUAL,
    handler="agent.cli.transcribe:import_compose",
    arguments=(argument("FILE", dest="file", help="a compose file, or - for standard input"),),
    options=(
        option("--project", metavar="NAME", default="", help="name of the stack (the folder's)"),
        option("--env-file", metavar="FILE", default="", help="variables (.env beside the file)"),
        option(
            "--profile",
            metavar="NAME",
            dest="profiles",
            action="append",
            default=[],
            help="a profile that is wanted",
        ),
        *_IMPORT,
    ),
    common=(*_FILES, "json"),
)
_EXPORTED = argument(
    "NAME", dest="names", nargs="*", help="sections or Docker names; all where none is given"
)
EXPORT_RUN = Command(
    name="export run",
    group="Configuration",
    summary="Print docker run lines for container sections",
    description="Prints shell lines that make the same containers, networks and volumes. They hold their secrets.",
    examples=(("ucidockd export run web", "The line for section `web`."),),
    exit_codes=_USUAL,
    handler="agent.cli.transcribe:export_text",
    arguments=(_EXPORTED,),
    common=_FILES,
)
EXPORT_COMPOSE = Command(
    name="export compose",
    group="Configuration",
    summary="Print a compose file for container sections",
    description="Prints a compose file that makes the same containers, networks and volumes. It holds their secrets.",
    examples=(("ucidockd export compose > compose.yml", "All containers as one file."),),
    exit_codes=_USUAL,
    handler="agent.cli.transcribe:export_text",
    arguments=(_EXPORTED,),
    common=_FILES,
)
STATUS = Command(
    name="status",
    group="What runs",
    summary="Show the state of each section",
    description="Shows what became of each section: whether it is as declared, whether its container runs, and why not.",
    examples=(
        ("ucidockd status", "Everything."),
        (
            "ucidockd status web --load",
            "One section, with the processors and memory that its container takes.",
        ),
        ("ucidockd status --problems", "What needs attention comes first."),
        ("ucidockd status --watch", "Follow changes until `q` or Ctrl-C."),
    ),
    exit_codes=_USUAL,
    handler="agent.cli.status:status",
    arguments=(argument("NAME", dest="names", nargs="*", help="only these sections or Docker names"),),
    options=(
        flag("--watch", help="follow changes; space and b turn pages, q ends it"),
        flag("--problems", help="what needs attention first"),
        flag("--load", help="what each container takes of processors and memory; takes a second"),
        option("--stack", metavar="STACK", default="", help="only this stack's sections"),
        choice(
            "--state",
            choices=("running", "stopped", "waiting", "failed", "warning", "in-sync"),
            help="only what is in this state",
        ),
    ),
    common=_ALL,
)
_NAMES = argument("NAME", dest="names", nargs="+", help="a section, a Docker name or an id")
_ONCE = flag(
    "--once", help="leave the section as it is: it lasts until its next change, a reconcile or a reboot"
)
_TIMEOUT = option("--timeout", metavar="TIME", type=_seconds, default=60.0, help="how long to wait (60s)")

START = Command(
    name="start",
    group="Containers",
    summary="Start containers, and declare that they run",
    description=(
        "Starts containers. For a declared one, `option state` and `option enabled` are taken out of its section and"
        " committed, so that it stays started, and the command waits until the agent has started it. One whose section wants"
        " it to run already, and that was stopped with docker or has failed, is tried again. A container that is not"
        " declared is started on the engine."
    ),
    examples=(
        ("ucidockd start web", "Start it, also after a reboot."),
        ("ucidockd start web --once", "Start it now and leave its section as it is."),
    ),
    exit_codes=_USUAL,
    handler="agent.cli.actions:start",
    arguments=(_NAMES,),
    options=(_ONCE, _TIMEOUT),
    common=_ALL,
)
STOP = Command(
    name="stop",
    group="Containers",
    summary="Stop containers, and declare that they are stopped",
    description=(
        "Stops containers. For a declared one, `option state 'stopped'` is written to its section and committed, so that it"
        " stays stopped, and the command waits until the agent has stopped it. A container that is not declared is stopped"
        " on the engine."
    ),
    examples=(
        ("ucidockd stop web", "Stop it until `ucidockd start web`, also after a reboot."),
        ("ucidockd stop web --once", "Stop it now and leave its section as it is."),
    ),
    exit_codes=_USUAL,
    handler="agent.cli.actions:stop",
    arguments=(_NAMES,),
    options=(_ONCE, _TIMEOUT),
    common=_ALL,
    words={"-t": "the time that a container gets to end is `option stop_timeout` of its section"},
)
RESTART = Command(
    name="restart",
    group="Containers",
    summary="Restart containers",
    description="Stops containers and starts them again. Their sections stay as they are.",
    examples=(("ucidockd restart web db", "Restart two containers, one after the other."),),
    exit_codes=_USUAL,
    handler="agent.cli.actions:restart",
    arguments=(_NAMES,),
    common=_ALL,
    words={
        "--once": "leave it out, a restart never changes the section",
        "-t": "the time that a container gets to end is `option stop_timeout` of its section",
    },
)
EXEC = Command(
    name="exec",
    group="Containers",
    summary="Run a command in a container",
    description=(
        "Runs a command in a running container. With -it it gets this terminal, keys and size included. Without a command,"
        " in a terminal, a shell is started."
    ),
    examples=(
        ("ucidockd exec -it web sh", "A shell in the container."),
        ("ucidockd exec web nginx -s reload", "One command; options behind NAME belong to it."),
        ("ucidockd exec -i db psql -U app <dump.sql", "With input from a file."),
    ),
    exit_codes=(
        (0, "the command ended with 0; any other exit code of the command is ours too"),
        _FAILED,
        _USAGE,
    ),
    handler="agent.cli.exec:execute",
    arguments=(_NAME,),
    options=(
        flag("-i", "--interactive", help="pass our input on"),
        flag("-t", "--tty", help="give it a terminal"),
        option("-u", "--user", metavar="USER", default="", help="user, or user:group"),
        option(
            "-e",
            "--env",
            metavar="K=V",
            action="append",
            default=[],
            help="environment variable; may be repeated",
        ),
        option("-w", "--workdir", metavar="PATH", default="", help="working directory in the container"),
        flag("-d", "--detach", help="do not wait for it"),
        flag("--privileged", help="with all rights of the router's root"),
    ),
    common=tuple(name for name in _ALL if name != "json"),
    rest="[COMMAND [ARG ...]]",
)
LOGS = Command(
    name="logs",
    group="Containers",
    summary="Show the output of containers",
    description=(
        "Shows what containers wrote to their standard output and standard error. Lines of several containers are merged by"
        " time."
    ),
    examples=(
        ("ucidockd logs web -n 100 -f", "The last 100 lines, and what follows."),
        ("ucidockd logs web db -t --since 10m", "Two containers, the last ten minutes, with times."),
        ("ucidockd logs web --grep 'error|warn'", "Only lines with one of these words."),
        ("ucidockd logs web --failed", "The last lines of the container whose start failed."),
    ),
    exit_codes=_USUAL,
    handler="agent.cli.logs:logs",
    words={"--lines": "`--tail N`", "--details": "`--json` has the time and the stream of each line"},
    arguments=(_NAMES,),
    options=(
        flag("-f", "--follow", help="continue with what comes, also of the container that replaces it"),
        option("-n", "--tail", metavar="N", default="all", help="the last N lines only"),
        flag("-t", "--timestamps", help="the time before each line"),
        option("--since", metavar="TIME", default="", help="10m, seconds since 1970 or an RFC 3339 time"),
        option("--until", metavar="TIME", default="", help="the same, where to end"),
        option(
            "--grep",
            metavar="REGEX",
            default="",
            help="only lines that match; `(?i)` at its begin ignores case",
        ),
        flag("--failed", help="the last lines of its container that failed"),
        flag("--raw", help="as it is, control characters too"),
    ),
    common=_ALL,
)
PULL = Command(
    name="pull",
    group="Containers",
    summary="Pull the images of sections, or others",
    description=(
        "Pulls images from their registries, with the logins of the `auth` sections. A container keeps the image that it"
        " runs until `ucidockd update`."
    ),
    examples=(
        ("ucidockd pull", "The images of all container sections."),
        ("ucidockd pull web nginx:1.27", "The image of section `web`, and another one."),
    ),
    exit_codes=_USUAL,
    handler="agent.cli.actions:pull",
    arguments=(
        argument("NAME", dest="names", nargs="*", help="a section, a Docker name or an image (all sections)"),
    ),
    common=_ALL,
)
PRUNE = Command(
    name="prune",
    group="Containers",
    summary="Remove images that nothing needs",
    description=(
        "Shows which images can go and how much space that gives back, and removes them once you agree. An image stays while"
        " a section names it (a disabled or waiting one too), a rollback needs it, or any container was made of it. Volumes"
        " are never removed. `option prune_images` of the agent section does this on a schedule."
    ),
    examples=(
        ("ucidockd prune --dry-run --images unused", "What could go, what stays and why."),
        ("ucidockd prune --images unused", "The same, and remove it after a question."),
        (
            "ucidockd prune --yes --older 7d --build-cache",
            "Without a question; what was needed within a week stays.",
        ),
    ),
    exit_codes=((0, "done, or nothing to do"), (1, "an error, or something could not be removed"), _USAGE),
    handler="agent.cli.system:prune",
    words={
        "-a": "`--images unused` is about images with a name too",
        "--all": "`--images unused` is about images with a name too",
        "--force": "`--yes`",
        "-f": "`--yes`",
        "--volumes": "volumes are never removed; `docker volume rm NAME` removes one",
        "--filter": "`--older TIME`",
    },
    options=(
        choice(
            "--images",
            choices=("dangling", "unused"),
            help="without a name, or all that nothing needs (as the agent section says, else dangling)",
        ),
        option("--older", metavar="TIME", default="", help="only what nothing needed for so long: 12h, 7d"),
        flag("--build-cache", help="the build cache too"),
        flag("--dry-run", help="only show it"),
        flag("-y", "--yes", help="remove it without a question"),
    ),
    common=(*_FILES, "socket", "json"),
)
NOTIFY = Command(
    name="notify",
    group="The agent and dockerd",
    summary="Send a test notice",
    description=(
        "Sends a test notice through a `notify` section, as it is committed, and says whether it was delivered. The notices"
        " about real events are sent by the agent.\n"
        "A section such as `config notify 'phone'` has `option type 'webhook'` and `option url 'https://ntfy.sh/my-topic'`."
    ),
    examples=(("ucidockd notify --test phone", "Try section `phone`."),),
    exit_codes=((0, "delivered"), (1, "not delivered, and why"), _USAGE),
    handler="agent.cli.system:notify",
    options=(option("--test", metavar="NAME", required=True, help="the notify section"),),
    common=(*_FILES, "socket", "json"),
)
UPDATE = Command(
    name="update",
    group="Containers",
    summary="Replace containers by ones of the newest images",
    description=(
        "Pulls the images of these sections and replaces the containers whose image is another one now, dependencies first."
        " A new container that does not stay up, or does not become healthy, is removed, and the old one runs on; what the"
        " new one printed last is shown. Without a name all of which something newer is known are shown, and updated once"
        " you agree. A tag that moves replaces nothing by itself, see `option update`."
    ),
    examples=(
        ("ucidockd update web", "Update the container of section `web`."),
        ("ucidockd update --check", "Ask the registries what is newer; nothing is pulled."),
        ("ucidockd update --yes", "Update all of which something newer is known."),
    ),
    exit_codes=((0, "done, or nothing is newer"), (1, "one failed, or waits"), _USAGE),
    handler="agent.cli.update:update",
    arguments=(_NAMES._replace(settings={**_NAMES.settings, "nargs": "*"}),),
    options=(
        flag("--check", help="only ask the registries, pull nothing"),
        flag("-y", "--yes", help="without a name: update all without a question"),
    ),
    common=_EITHER,
)
ROLLBACK = Command(
    name="rollback",
    group="Containers",
    summary="Take a container back to the image before",
    description=(
        "Replaces the container by one of the image that it ran before its last update. The image is pulled by its digest"
        " if it is gone. The container stays on it, pinned, until its section changes or an update is asked for. Volumes"
        " keep what is in them, unless `--with-data` puts back what `option backup_before_update` saved before the update;"
        " what was written since is lost then."
    ),
    examples=(("ucidockd rollback web", "Back to the image that `web` ran before its last update."),),
    exit_codes=((0, "done"), (1, "it failed, or waits"), _USAGE),
    handler="agent.cli.update:rollback",
    arguments=(_NAME._replace(help="a container section, or its Docker name"),),
    options=(flag("--with-data", help="put the data back too that was saved before the update"),),
    common=_EITHER,
)
WAIT = Command(
    name="wait",
    group="What runs",
    summary="Wait until sections are in sync or healthy",
    description=(
        "Waits until sections are as they are declared, or until containers are healthy. Without a name it waits for all"
        " sections."
    ),
    examples=(
        ("uci commit containers; ucidockd wait", "Until the agent has applied everything."),
        ("ucidockd wait db --for healthy --timeout 2m", "Until the health check of `db` passes."),
    ),
    exit_codes=(*_USUAL, (5, "the time is over; the output says what is missing")),
    handler="agent.cli.actions:wait",
    arguments=(_NAMES._replace(settings={**_NAMES.settings, "nargs": "*"}),),
    options=(
        choice(
            "--for",
            choices=("in-sync", "healthy"),
            dest="what",
            default="in-sync",
            help="what to wait for (in-sync)",
        ),
        _TIMEOUT,
    ),
    common=_ALL,
)
RUN = Command(
    name="run",
    group="The agent and dockerd",
    summary="Run the agent",
    description=(
        "Runs the agent in the foreground: it applies the configuration after each `uci commit` and keeps the engine as it"
        " says. On OpenWrt `/etc/init.d/ucidockd start` runs it as a service, with systemd `systemctl start ucidockd`. A"
        " container is not run by this command: it is declared in /etc/config/containers."
    ),
    examples=(("ucidockd run --log-level debug", "Run it in a terminal and show everything that it does."),),
    exit_codes=((0, "it was ended by a signal"), _FAILED, _USAGE, (3, "another agent is running")),
    handler="agent.cli.main:run",
    hint=(
        "this command is the agent; `ucidockd import run -- docker run IMAGE` shows the section of a container, and the"
        " agent runs what is declared in /etc/config/containers"
    ),
    options=(
        choice(
            "--log-level",
            choices=("debug", "info", "warning", "error"),
            help="the least that is logged (info)",
        ),
        option("--ubus-socket", metavar="SOCKET", help="ubusd (/var/run/ubus/ubus.sock)"),
    ),
    common=(*_FILES, "save-dir", "state-dir", "socket", *_ENGINE),
)
RENDER = Command(
    name="render",
    group="The agent and dockerd",
    summary="Print the daemon.json that UCI asks for",
    description=(
        "Prints dockerd's configuration file as /etc/config/dockerd asks for it. With --diff it shows what would change, and"
        " whether dockerd has to be reloaded or restarted for it."
    ),
    examples=(("ucidockd render --diff", "What a reconcile would change in dockerd."),),
    exit_codes=_USUAL,
    handler="agent.cli.system:render",
    options=(flag("--diff", help="what would change, and what that would take"),),
    common=(*_FILES, "state-dir", "socket", *_ENGINE, "json"),  # its folder has the running file
)
UCI = Command(
    name="uci",
    group="The agent and dockerd",
    summary="Print a UCI package as the agent reads it",
    description="Prints a package in the form of `uci show` or `uci export`, where there is no `uci` command.",
    examples=(("ucidockd uci show containers", "All options, a line each."),),
    exit_codes=_USUAL,
    handler="agent.cli.system:uci",
    arguments=(
        choice("form", choices=("show", "export"), help="a line for each option, or the syntax of the file"),
        argument("PACKAGE", dest="package", help="containers, dockerd or any other"),
    ),
    options=(
        choice(
            "--store",
            choices=("text", "pyuci"),
            default="text",
            help="read it ourselves, or with libuci (text)",
        ),
    ),
    common=_FILES,
)
TLS_CLIENT = Command(
    name="tls client",
    group="The agent and dockerd",
    summary="Write the certificates that a remote docker needs",
    description=(
        "Makes a client's certificate for dockerd's TLS and writes what `docker --tlsverify` needs to a new folder. Whoever"
        " has this folder controls the router."
    ),
    examples=(("ucidockd tls client laptop", "Write ./laptop with ca.pem, cert.pem and key.pem."),),
    exit_codes=_USUAL,
    handler="agent.cli.tls:tls_client",
    arguments=(argument("NAME", dest="name", help="letters, digits and . _ @ -"),),
    options=(
        option("--out", metavar="DIR", help="folder to be made (./NAME)"),
        option("--days", metavar="N", type=_number, default=730, help="how long it is valid (730)"),
    ),
    common=(*_FILES, "state-dir", "json"),
)
_VOLUME = argument("NAME", dest="name", help="a volume, by its Docker name")
_STOP_FOR_COPY = flag("--stop", help="stop the managed containers that mount it meanwhile")
VOLUME_LS = Command(
    name="volume ls",
    group="Data",
    summary="List the volumes, or the files of one",
    description="Lists the volumes of the engine. With a name it lists the entries of a folder of that volume.",
    examples=(
        ("ucidockd volume ls", "The volumes."),
        ("ucidockd volume ls data backups", "What is in the folder `backups` of volume `data`."),
    ),
    exit_codes=_USUAL,
    handler="agent.cli.data:volume_ls",
    arguments=(
        _VOLUME._replace(settings={**_VOLUME.settings, "nargs": "?"}),
        argument("PATH", dest="path", nargs="?", help="a folder of the volume"),
    ),
    common=("config-dir", "override-dir", "socket", "json"),
)
VOLUME_GET = Command(
    name="volume get",
    group="Data",
    summary="Write a volume to a tar file",
    description=(
        "Writes a volume, or a file or folder of it, to a tar file. The file appears only once it is complete and was found"
        " whole. A program that writes meanwhile may leave the copy half-way between two states: use --stop for databases."
    ),
    examples=(
        ("ucidockd volume get data data.tar --stop", "Stop what mounts it, copy it, start it again."),
        ("ucidockd volume get data - | ssh nas 'cat >data.tar'", "Send it to another machine."),
    ),
    exit_codes=_USUAL,
    handler="agent.cli.data:volume_get",
    arguments=(_VOLUME, argument("FILE", dest="file", help="the file to write; `-` is the standard output")),
    options=(option("--path", metavar="PATH", help="only this file or folder of it"), _STOP_FOR_COPY),
    common=("config-dir", "override-dir", "socket"),
)
VOLUME_PUT = Command(
    name="volume put",
    group="Data",
    summary="Unpack a tar file into a volume",
    description=(
        "Unpacks a tar file, also one that gzip packed, into a volume, over what is there. With --replace the archive takes"
        " the place of all files of the volume: it goes into a temporary volume first, so that a damaged archive costs"
        " nothing, and the managed containers that mount the volume stop only for the moment of the exchange."
    ),
    examples=(
        ("ucidockd volume put data data.tar --replace", "Put a volume back as it was."),
        ("ucidockd volume put copy data.tar --create", "Make a new volume of it."),
        ("ucidockd volume put site pages.tar.gz --path html", "Add files to a folder."),
    ),
    exit_codes=_USUAL,
    handler="agent.cli.data:volume_put",
    arguments=(_VOLUME, argument("FILE", dest="file", help="the archive; `-` is the standard input")),
    options=(
        option("--path", metavar="PATH", help="a folder of the volume to unpack into"),
        flag("--replace", help="replace all files of the volume, or none"),
        flag("--create", help="make the volume, which must not exist"),
        _STOP_FOR_COPY,
    ),
    common=("config-dir", "override-dir", "socket"),
)
_AGENT_ONLY = ("config-dir", "override-dir", "socket", "json")
MOVE_DATA = Command(
    name="move-data",
    group="Data",
    summary="Move Docker's data to another disk",
    description=(
        "Copies images, containers and volumes from `data_root` to an empty folder, sets `data_root`, and starts the same"
        " engine there. It first shows how much there is to copy, which containers stop and for how long, and asks."
        " Containers keep running while the first copy is made, and stop only for what changed since. The copy is compared"
        " with the data before it is used. If anything fails, the old data is used again. To continue a move that was cut"
        " short, give the same command again. The old data stays until you remove it; the command for that is shown at the"
        " end."
    ),
    examples=(
        ("ucidockd move-data --check /mnt/sda1/docker", "What the move would do."),
        ("ucidockd move-data /mnt/sda1/docker", "The same, and do it after a question."),
    ),
    exit_codes=(
        (0, "done"),
        (1, "it cannot be moved, failed or was cancelled: the old data is in use"),
        _USAGE,
    ),
    handler="agent.cli.data:move_data",
    arguments=(argument("TARGET", dest="target", help="an empty folder on the new disk"),),
    options=(
        flag("--check", help="only show what the move would do"),
        flag("-y", "--yes", help="without a question"),
    ),
    common=_AGENT_ONLY,
)
BACKUP = Command(
    name="backup",
    group="Data",
    summary="Make backups now, or list them",
    description=(
        "Makes the backups of `config backup` sections now and waits for them. Each archive is read back and compared before"
        " it counts. With --list it shows how the last ones ended and which archives there are.\n"
        "A section such as `config backup 'nightly'` has `list section 'db'`, `option target '/mnt/sda1/backups'` and"
        " `option schedule 'daily'`."
    ),
    examples=(
        ("ucidockd backup", "Make all of them."),
        ("ucidockd backup nightly", "Make one."),
        ("ucidockd backup --list", "Show what there is."),
    ),
    exit_codes=_USUAL,
    handler="agent.cli.data:backup",
    arguments=(argument("NAME", dest="names", nargs="*", help="a backup section"),),
    options=(flag("--list", help="show the last results and the archives"),),
    common=_AGENT_ONLY,
)
RESTORE = Command(
    name="restore",
    group="Data",
    summary="Put a volume back from a backup",
    description=(
        "Gives a volume the files of an archive: the newest of the backup section, or the one that you name. They go into a"
        " temporary volume first, so that a damaged archive changes nothing; the managed containers that mount the volume"
        " stop only for the moment of the exchange. With --into a new volume gets the files."
    ),
    examples=(
        ("ucidockd restore nightly --volume data", "The newest archive of volume `data`."),
        ("ucidockd restore nightly --from old.tar --into data_old", "An older one, beside what there is."),
        ("restic dump latest data.tar | ucidockd restore nightly --from -", "From a command's archive."),
    ),
    exit_codes=_USUAL,
    handler="agent.cli.data:restore",
    arguments=(argument("NAME", dest="name", help="a backup section"),),
    options=(
        option("--volume", metavar="VOLUME", help="which volume, where the section saves several"),
        option("--from", dest="source", metavar="FILE", help="an archive; `-` is the standard input"),
        option("--into", metavar="VOLUME", help="make this new volume and leave the old one as it is"),
    ),
    common=_AGENT_ONLY,
)
HELP_COMMAND = Command(
    name="help",
    group="Help",
    summary="Show the commands, or one of them",
    description="Lists the commands, or shows the options, examples and exit codes of one.",
    examples=(("ucidockd help logs", "The same as `ucidockd logs --help`."),),
    exit_codes=(_DONE, _USAGE),
    handler="agent.cli.system:show_help",
    arguments=(argument("COMMAND", dest="topic", nargs="*", help="a command"),),
)
VERSION = Command(
    name="version",
    group="Help",
    summary="Show the version",
    description="Shows the version of ucidockd, as `ucidockd --version` does.",
    examples=(("ucidockd version", ""),),
    exit_codes=(_DONE, _USAGE),
    handler="agent.cli.system:version",
)

COMMANDS: tuple[Command, ...] = (
    CHECK,
    PLAN,
    RECONCILE,
    DIFF,
    HISTORY,
    ADOPT,
    IMPORT_RUN,
    IMPORT_COMPOSE,
    EXPORT_RUN,
    EXPORT_COMPOSE,
    STATUS,
    DESCRIBE,
    WAIT,
    START,
    STOP,
    RESTART,
    EXEC,
    LOGS,
    PULL,
    UPDATE,
    ROLLBACK,
    PRUNE,
    NOTIFY,
    RUN,
    RENDER,
    UCI,
    TLS_CLIENT,
    VOLUME_LS,
    VOLUME_GET,
    VOLUME_PUT,
    MOVE_DATA,
    BACKUP,
    RESTORE,
    HELP_COMMAND,
    VERSION,
)

# what people type who know docker, compose, kubectl or terraform
DOCKER_WORDS: Mapping[str, str] = {
    "ps": "`ucidockd status` shows what runs",
    "ls": "`ucidockd status` shows what runs",
    "list": "`ucidockd status` shows what runs",
    "container": "`ucidockd status` shows what runs",
    "top": "`ucidockd status --watch` follows what runs",
    "stats": "`ucidockd status --watch` follows what runs",
    "compose": "`ucidockd import compose FILE` turns a compose file into sections",
    "convert": "`ucidockd import compose FILE` turns a compose file into sections",
    "up": "declare the container in /etc/config/containers, then `uci commit` and `ucidockd reconcile`",
    "apply": "`ucidockd reconcile` applies the configuration",
    "deploy": "`ucidockd reconcile` applies the configuration",
    "sync": "`ucidockd reconcile` applies the configuration",
    "reload": "`ucidockd reconcile` applies the configuration",
    "create": "declare the container in /etc/config/containers, then `uci commit` and `ucidockd reconcile`",
    "down": "delete the section (`uci delete containers.NAME; uci commit containers`), then `ucidockd reconcile`",
    "rm": "delete the section (`uci delete containers.NAME; uci commit containers`), then `ucidockd reconcile`",
    "remove": "delete the section (`uci delete containers.NAME; uci commit containers`), then `ucidockd reconcile`",
    "delete": "delete the section (`uci delete containers.NAME; uci commit containers`), then `ucidockd reconcile`",
    "validate": "`ucidockd check` lists every mistake",
    "config": "`ucidockd check` lists every mistake, `ucidockd uci show containers` prints the configuration",
    "images": "`ucidockd status` shows the images of sections, `ucidockd pull` pulls them",
    "image": "`ucidockd pull NAME` pulls an image",
    "rmi": "`docker rmi` removes an image, LuCI's page Images too",
    "kill": "`ucidockd stop NAME` stops a container",
    "pause": "`ucidockd stop NAME --once` stops a container until its next change",
    "rename": "change `option name` of the section, then `uci commit`",
    "cp": "`ucidockd volume get` and `put` copy volumes; LuCI's page Files copies to and from containers",
    "attach": "`ucidockd logs NAME -f` follows its output, `ucidockd exec -it NAME sh` opens a shell",
    "shell": "`ucidockd exec -it NAME sh` opens a shell",
    "sh": "`ucidockd exec -it NAME sh` opens a shell",
    "build": "build the image elsewhere and name it in `option image`",
    "login": "add an `auth` section with `option serveraddress`, `username` and `password`",
    "network": "declare it as a `network` section; `ucidockd status` shows them",
    "info": "`ucidockd status` shows the agent and the engine",
    "events": "`ucidockd status --watch` follows changes",
    "init": "`touch /etc/config/containers`, then declare a container in it",
    "edit": "edit /etc/config/containers, then `ucidockd check`",
    "set": "`uci set containers.NAME.OPTION=VALUE; uci commit containers`",
    "enable": "`ucidockd start NAME`",
    "disable": "`ucidockd stop NAME`",
    "move": "`ucidockd move-data TARGET` moves Docker's data to another disk",
    "migrate": "`ucidockd move-data TARGET` moves Docker's data to another disk",
    "docker": "leave out the word `docker`; `ucidockd --help` lists the commands",
    "lint": "`ucidockd check` lists every mistake",
    "inspect": "`ucidockd describe NAME` shows everything about a section",
    "get": "`ucidockd status` shows what runs",
    "completion": "the package brings completion for bash, zsh, fish and ash: open a new shell",
    "upgrade": "`ucidockd update` replaces containers by ones of newer images",
    "revert": "`ucidockd history NAME --revert N` brings earlier settings back, `ucidockd rollback NAME` the image before",
    "undo": "`ucidockd history NAME --revert N` brings earlier settings back, `ucidockd rollback NAME` the image before",
    "rollout": "`ucidockd update` and `ucidockd rollback NAME`",
    "volumes": "`ucidockd volume ls` lists them",
    "system": "`ucidockd prune` removes images that nothing needs",
    "search": "look for the image on hub.docker.com, and name it in `option image`",
    "push": "nothing: ucidockd only pulls images",
    "commit": "`uci commit containers`",
    "tag": "`option image 'NAME:TAG'` of the section",
    "save": "`ucidockd backup` saves volumes",
    "load": "LuCI's page Images loads an archive",
    "log": "`ucidockd logs NAME` shows a container's output",
    "agent": "`ucidockd run` runs the agent",
    "daemon": "`ucidockd run` runs the agent",
    "serve": "`ucidockd run` runs the agent",
}
