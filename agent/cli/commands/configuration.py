# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that read, compare and write sections."""

from __future__ import annotations

from agent.cli.commands.row import EITHER, FILES, NAME, USAGE, USUAL, Command, argument, flag, number, option

_IMPORT = (
    option("--folder", metavar="DIR", help="the folder that relative paths start from"),
    flag("--commit", help="write the sections; otherwise they are only shown"),
)
_EXPORTED = argument("NAME", dest="names", nargs="*", help="sections or Docker names; all by default")

COMMANDS = (
    Command(
        name="check",
        group="Configuration",
        summary="Check the configuration and list every mistake",
        description=(
            "Reads /etc/config/containers and /etc/config/dockerd as they are committed, or the files that you name, and"
            " lists every mistake as `file:line: error: ...` or `warning`, in the order of their lines. Nothing is"
            " changed. It needs neither an agent nor an engine. It warns of host ports that something on this machine"
            " has; with --offline, as for a router's files on another machine, only the files count."
        ),
        examples=(
            ("ucidockd check", "Check what is committed."),
            ("ucidockd check --staged", "Check it as it would be after `uci commit`."),
            ("ucidockd check --strict ./containers", "Check a file, and fail on warnings too."),
            ("uci export containers | ucidockd check -", "Check the output of another program."),
            (
                "ucidockd check --offline --strict router/containers",
                "In CI: ignore what runs on this machine.",
            ),
        ),
        exit_codes=((0, "no errors"), (1, "there are errors, with --strict also warnings"), USAGE),
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
        common=(*FILES, "save-dir", "json"),
    ),
    Command(
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
            USAGE,
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
        common=EITHER,
    ),
    Command(
        name="reconcile",
        group="Configuration",
        summary="Apply the configuration now and wait until it is done",
        description=(
            "Makes the engine match the configuration. The agent does so by itself after each `uci commit`; this does it"
            " now, retries what failed, ends what `--once` and docker's own commands changed, and waits for the outcome."
            " Without an agent it is done in this process."
        ),
        examples=(("uci commit containers; ucidockd reconcile", "Apply a change and see the outcome."),),
        exit_codes=(
            (0, "everything that can be done is done"),
            (1, "something failed or is in conflict, or there is no engine"),
            USAGE,
            (3, "another agent is running"),
        ),
        handler="agent.cli.plan:reconcile",
        hint="it applies the whole configuration; `ucidockd start NAME` tries one container again",
        options=(
            option(
                "--settle",
                metavar="SECONDS",
                type=number,
                default=2,
                help="how long a started container has to run to count as started (2, at most 60)",
            ),
        ),
        common=EITHER,
    ),
    Command(
        name="diff",
        group="Configuration",
        summary="Compare a section with what the engine shows",
        description="Shows each field of a container section that differs from what runs, and what would be done about it.",
        examples=(("ucidockd diff web", "What differs for the container of section `web`."),),
        exit_codes=USUAL,
        handler="agent.cli.container:diff",
        arguments=(NAME._replace(help="a container section, or its Docker name"),),
        common=EITHER,
    ),
    Command(
        name="history",
        group="Configuration",
        summary="Show the settings that a section has had, or go back to them",
        description=(
            "Shows the last versions of a container section that were applied, newest first, and which options each"
            " changed. With --revert the settings of a version are written to /etc/config/containers again; the agent"
            " applies them as any other change. Volumes keep what is in them."
        ),
        examples=(
            ("ucidockd history web", "The versions of section `web`."),
            ("ucidockd history web --revert 3", "Use the settings of version 3 again."),
        ),
        exit_codes=USUAL,
        handler="agent.cli.container:history",
        arguments=(NAME._replace(help="a container section, or its Docker name"),),
        options=(
            option("--revert", metavar="VERSION", type=number, help="write this version as the section"),
        ),
        common=EITHER,
    ),
    Command(
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
        exit_codes=USUAL,
        handler="agent.cli.container:adopt",
        arguments=(NAME._replace(help="Docker name or id"),),
        options=(
            option(
                "--section",
                metavar="SECTION",
                default="",
                help="name of the section (derived from the Docker name)",
            ),
            flag("--commit", help="write it; otherwise it is only shown"),
            flag("--show-secrets", help="show environment values"),
        ),
        common=EITHER,
    ),
    Command(
        name="import run",
        group="Configuration",
        summary="Turn a docker run line into sections",
        description=(
            "Shows what a `docker run` line, or several with `docker network create` and `docker volume create`, would be"
            " as sections of /etc/config/containers, and what becomes of each flag: taken, changed, left out or unknown."
            " Without a line the text is read from standard input."
        ),
        examples=(
            ("ucidockd import run -- docker run -d -p 8080:80 nginx", "Show the section."),
            ("ucidockd import run --commit < run.sh", "Write the sections of the lines in a file."),
        ),
        exit_codes=USUAL,
        handler="agent.cli.transcribe:import_run",
        arguments=(argument("WORD", dest="word", nargs="?", help="the first word of the line: docker"),),
        options=_IMPORT,
        common=(*FILES, "json"),
        rest="WORD ...",
        hint="docker's options follow `--`, as in `ucidockd import run -- docker run -d -p 8080:80 nginx`",
    ),
    Command(
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
        exit_codes=USUAL,
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
                help="a profile to import",
            ),
            *_IMPORT,
        ),
        common=(*FILES, "json"),
    ),
    Command(
        name="export run",
        group="Configuration",
        summary="Print docker run lines for container sections",
        description="Prints shell lines that make the same containers, networks and volumes. They hold their secrets.",
        examples=(("ucidockd export run web", "The line for section `web`."),),
        exit_codes=USUAL,
        handler="agent.cli.transcribe:export_text",
        arguments=(_EXPORTED,),
        common=FILES,
    ),
    Command(
        name="export compose",
        group="Configuration",
        summary="Print a compose file for container sections",
        description="Prints a compose file that makes the same containers, networks and volumes. It holds their secrets.",
        examples=(("ucidockd export compose > compose.yml", "All containers as one file."),),
        exit_codes=USUAL,
        handler="agent.cli.transcribe:export_text",
        arguments=(_EXPORTED,),
        common=FILES,
    ),
)
