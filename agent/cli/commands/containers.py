# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that look at what runs, and start, stop, update or clean it."""

from __future__ import annotations

from agent.cli.commands.row import (
    ALL,
    EITHER,
    FAILED,
    FILES,
    NAME,
    NAMES,
    TIMEOUT,
    USAGE,
    USUAL,
    Command,
    argument,
    choice,
    flag,
    option,
)

_ONCE = flag(
    "--once", help="leave the section as it is: it lasts until its next change, a reconcile or a reboot"
)

COMMANDS = (
    Command(
        name="status",
        group="What runs",
        summary="Show the state of each section",
        description="Shows the state of each section: whether it is as declared, whether its container runs, and why not.",
        examples=(
            ("ucidockd status", "Everything."),
            (
                "ucidockd status web --load",
                "One section, with the processor and memory use of its container.",
            ),
            ("ucidockd status --problems", "Sections that need attention come first."),
            ("ucidockd status --watch", "Follow changes until `q` or Ctrl-C."),
        ),
        exit_codes=USUAL,
        handler="agent.cli.status:status",
        arguments=(argument("NAME", dest="names", nargs="*", help="only these sections or Docker names"),),
        options=(
            flag("--watch", help="follow changes; space and b turn pages, q ends it"),
            flag("--problems", help="sections that need attention first"),
            flag("--load", help="processor and memory use of each container; takes a second"),
            option("--stack", metavar="STACK", default="", help="only this stack's sections"),
            choice(
                "--state",
                choices=("running", "stopped", "waiting", "failed", "warning", "in-sync"),
                help="only what is in this state",
            ),
        ),
        common=ALL,
    ),
    Command(
        name="describe",
        group="What runs",
        summary="Show everything about one section",
        description=(
            "Shows each option of a container section and where its value comes from (section, image or default), its"
            " conditions in sentences, the last operations with causes, mounts, networks with addresses, who can reach"
            " its ports, and its image."
        ),
        examples=(("ucidockd describe web", "All that is known of section `web`."),),
        exit_codes=USUAL,
        handler="agent.cli.container:describe",
        arguments=(NAME._replace(help="a container section, or its Docker name"),),
        common=EITHER,
    ),
    Command(
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
        exit_codes=(*USUAL, (5, "timed out; the output says what is missing")),
        handler="agent.cli.actions:wait",
        arguments=(NAMES._replace(settings={**NAMES.settings, "nargs": "*"}),),
        options=(
            choice(
                "--for",
                choices=("in-sync", "healthy"),
                dest="what",
                default="in-sync",
                help="what to wait for (in-sync)",
            ),
            TIMEOUT,
        ),
        common=ALL,
    ),
    Command(
        name="start",
        group="Containers",
        summary="Start containers, and declare that they run",
        description=(
            "Starts containers. For a declared container, `option state` and `option enabled` are removed from its"
            " section and the change is committed, so that it stays started; the command waits until the agent has"
            " started it. A container that is declared to run, but was stopped with docker or has failed, is started"
            " again. A container that is not declared is started on the engine."
        ),
        examples=(
            ("ucidockd start web", "Start it, also after a reboot."),
            ("ucidockd start web --once", "Start it now and leave its section as it is."),
        ),
        exit_codes=USUAL,
        handler="agent.cli.actions:start",
        arguments=(NAMES,),
        options=(_ONCE, TIMEOUT),
        common=ALL,
    ),
    Command(
        name="stop",
        group="Containers",
        summary="Stop containers, and declare that they are stopped",
        description=(
            "Stops containers. For a declared container, `option state 'stopped'` is written to its section and"
            " committed, so that it stays stopped; the command waits until the agent has stopped it. A container that"
            " is not declared is stopped on the engine."
        ),
        examples=(
            ("ucidockd stop web", "Stop it until `ucidockd start web`, also after a reboot."),
            ("ucidockd stop web --once", "Stop it now and leave its section as it is."),
        ),
        exit_codes=USUAL,
        handler="agent.cli.actions:stop",
        arguments=(NAMES,),
        options=(_ONCE, TIMEOUT),
        common=ALL,
        words={"-t": "`option stop_timeout` of the section is the time that its container gets to stop"},
    ),
    Command(
        name="restart",
        group="Containers",
        summary="Restart containers",
        description="Stops containers and starts them again. Their sections stay as they are.",
        examples=(("ucidockd restart web db", "Restart two containers, one after the other."),),
        exit_codes=USUAL,
        handler="agent.cli.actions:restart",
        arguments=(NAMES,),
        common=ALL,
        words={
            "--once": "leave it out, a restart never changes the section",
            "-t": "`option stop_timeout` of the section is the time that its container gets to stop",
        },
    ),
    Command(
        name="exec",
        group="Containers",
        summary="Run a command in a container",
        description=(
            "Runs a command in a running container. With -it it uses this terminal, including keys and size. Without a"
            " command, in a terminal, it starts a shell."
        ),
        examples=(
            ("ucidockd exec -it web sh", "A shell in the container."),
            ("ucidockd exec web nginx -s reload", "One command; options behind NAME belong to it."),
            ("ucidockd exec -i db psql -U app <dump.sql", "With input from a file."),
        ),
        exit_codes=(
            (0, "the command ended with 0; any other exit code of the command is passed on"),
            FAILED,
            USAGE,
        ),
        handler="agent.cli.exec:execute",
        arguments=(NAME,),
        options=(
            flag("-i", "--interactive", help="pass standard input on"),
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
        common=tuple(name for name in ALL if name != "json"),
        rest="[COMMAND [ARG ...]]",
    ),
    Command(
        name="logs",
        group="Containers",
        summary="Show the output of containers",
        description=(
            "Shows what containers wrote to their standard output and standard error. Lines of several containers are"
            " merged by time."
        ),
        examples=(
            ("ucidockd logs web -n 100 -f", "The last 100 lines, and what follows."),
            ("ucidockd logs web db -t --since 10m", "Two containers, the last ten minutes, with times."),
            ("ucidockd logs web --grep 'error|warn'", "Only lines with one of these words."),
            ("ucidockd logs web --failed", "The last lines of the container whose start failed."),
        ),
        exit_codes=USUAL,
        handler="agent.cli.logs:logs",
        words={"--lines": "`--tail N`", "--details": "`--json` has the time and the stream of each line"},
        arguments=(NAMES,),
        options=(
            flag("-f", "--follow", help="follow new output, also that of a container that replaces it"),
            option("-n", "--tail", metavar="N", default="all", help="the last N lines only"),
            flag("-t", "--timestamps", help="the time before each line"),
            option("--since", metavar="TIME", default="", help="10m, seconds since 1970 or an RFC 3339 time"),
            option("--until", metavar="TIME", default="", help="the same, for the end"),
            option(
                "--grep",
                metavar="REGEX",
                default="",
                help="only lines that match; `(?i)` at its start ignores case",
            ),
            flag("--failed", help="the last lines of the container that failed"),
            flag("--raw", help="unchanged, including control characters"),
        ),
        common=ALL,
    ),
    Command(
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
        exit_codes=USUAL,
        handler="agent.cli.actions:pull",
        arguments=(
            argument(
                "NAME", dest="names", nargs="*", help="a section, a Docker name or an image (all sections)"
            ),
        ),
        common=ALL,
    ),
    Command(
        name="update",
        group="Containers",
        summary="Update containers to the newest images",
        description=(
            "Pulls the images of these sections and replaces the containers whose image has changed, dependencies first."
            " If a new container does not stay up or does not become healthy, it is removed, the old one keeps running,"
            " and the last output of the new one is shown. Without a name, all containers with a newer image are shown,"
            " and updated after a confirmation. A moved tag alone does not replace a container; see `option update`."
        ),
        examples=(
            ("ucidockd update web", "Update the container of section `web`."),
            ("ucidockd update --check", "Ask the registries what is newer; nothing is pulled."),
            ("ucidockd update --yes", "Update all that have a newer image."),
        ),
        exit_codes=((0, "done, or nothing is newer"), (1, "one failed, or waits"), USAGE),
        handler="agent.cli.plan:update",
        arguments=(NAMES._replace(settings={**NAMES.settings, "nargs": "*"}),),
        options=(
            flag("--check", help="only ask the registries, pull nothing"),
            flag("-y", "--yes", help="without a name: update all without a question"),
        ),
        common=EITHER,
    ),
    Command(
        name="rollback",
        group="Containers",
        summary="Take a container back to its previous image",
        description=(
            "Replaces the container with one from the image that it ran before its last update. The image is pulled by its"
            " digest if it was removed. The container is pinned to it until its section changes or an update is"
            " requested. Volumes keep their files, unless `--with-data` restores what `option backup_before_update`"
            " saved before the update; files written since are lost then."
        ),
        examples=(("ucidockd rollback web", "Back to the image that `web` ran before its last update."),),
        exit_codes=((0, "done"), (1, "it failed, or waits"), USAGE),
        handler="agent.cli.plan:rollback",
        arguments=(NAME._replace(help="a container section, or its Docker name"),),
        options=(flag("--with-data", help="also restore the data that was saved before the update"),),
        common=EITHER,
    ),
    Command(
        name="prune",
        group="Containers",
        summary="Remove images that nothing needs",
        description=(
            "Shows which images can be removed and how much space that frees, and removes them after a confirmation. An"
            " image is kept while a section names it (even a disabled or waiting one), a rollback needs it, or a"
            " container was created from it. Volumes are never removed. `option prune_images` of the agent section does"
            " this on a schedule."
        ),
        examples=(
            ("ucidockd prune --dry-run --images unused", "What could go, what stays and why."),
            ("ucidockd prune --images unused", "The same, and remove it after a question."),
            (
                "ucidockd prune --yes --older 7d --build-cache",
                "Without a question; images that were needed within a week stay.",
            ),
        ),
        exit_codes=((0, "done, or nothing to do"), (1, "an error, or something could not be removed"), USAGE),
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
                help="without a name, or all that nothing needs (as in the agent section, else dangling)",
            ),
            option(
                "--older",
                metavar="TIME",
                default="",
                help="only images that nothing has needed for this long: 12h, 7d",
            ),
            flag("--build-cache", help="the build cache too"),
            flag("--dry-run", help="only show it"),
            flag("-y", "--yes", help="remove it without a question"),
        ),
        common=(*FILES, "socket", "json"),
    ),
)
