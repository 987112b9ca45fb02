# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands about the agent, dockerd, and help."""

from __future__ import annotations

from agent.cli.commands.row import (
    DONE,
    ENGINE,
    FAILED,
    FILES,
    USAGE,
    USUAL,
    Command,
    argument,
    choice,
    flag,
    number,
    option,
)

COMMANDS = (
    Command(
        name="notify",
        group="The agent and dockerd",
        summary="Send a test notice",
        description=(
            "Sends a test notice through a `notify` section, as it is committed, and says whether it was delivered. The"
            " notices about real events are sent by the agent.\n"
            "A section such as `config notify 'phone'` has `option type 'webhook'` and `option url"
            " 'https://ntfy.sh/my-topic'`."
        ),
        examples=(("ucidockd notify --test phone", "Try section `phone`."),),
        exit_codes=((0, "delivered"), (1, "not delivered, and why"), USAGE),
        handler="agent.cli.system:notify",
        options=(option("--test", metavar="NAME", required=True, help="the notify section"),),
        common=(*FILES, "socket", "json"),
    ),
    Command(
        name="run",
        group="The agent and dockerd",
        summary="Run the agent",
        description=(
            "Runs the agent in the foreground: it applies the configuration after each `uci commit` and keeps the engine"
            " as it says. On OpenWrt `/etc/init.d/ucidockd start` runs it as a service, with systemd `systemctl start"
            " ucidockd`. A container is not run by this command: it is declared in /etc/config/containers."
        ),
        examples=(
            ("ucidockd run --log-level debug", "Run it in a terminal and show everything that it does."),
        ),
        exit_codes=((0, "it was ended by a signal"), FAILED, USAGE, (3, "another agent is running")),
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
        common=(*FILES, "save-dir", "state-dir", "socket", *ENGINE),
    ),
    Command(
        name="render",
        group="The agent and dockerd",
        summary="Print the daemon.json that UCI asks for",
        description=(
            "Prints dockerd's configuration file as /etc/config/dockerd asks for it. With --diff it shows what would"
            " change, and whether dockerd has to be reloaded or restarted for it."
        ),
        examples=(("ucidockd render --diff", "What a reconcile would change in dockerd."),),
        exit_codes=USUAL,
        handler="agent.cli.system:render",
        options=(flag("--diff", help="what would change, and what that would take"),),
        common=(*FILES, "state-dir", "socket", *ENGINE, "json"),  # its folder has the running file
    ),
    Command(
        name="uci",
        group="The agent and dockerd",
        summary="Print a UCI package as the agent reads it",
        description="Prints a package in the form of `uci show` or `uci export`, where there is no `uci` command.",
        examples=(("ucidockd uci show containers", "All options, a line each."),),
        exit_codes=USUAL,
        handler="agent.cli.system:uci",
        arguments=(
            choice(
                "form", choices=("show", "export"), help="a line for each option, or the syntax of the file"
            ),
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
        common=FILES,
    ),
    Command(
        name="tls client",
        group="The agent and dockerd",
        summary="Write the certificates that a remote docker needs",
        description=(
            "Makes a client's certificate for dockerd's TLS and writes what `docker --tlsverify` needs to a new folder."
            " Whoever has this folder controls the router."
        ),
        examples=(("ucidockd tls client laptop", "Write ./laptop with ca.pem, cert.pem and key.pem."),),
        exit_codes=USUAL,
        handler="agent.cli.system:tls_client",
        arguments=(argument("NAME", dest="name", help="letters, digits and . _ @ -"),),
        options=(
            option("--out", metavar="DIR", help="folder to be made (./NAME)"),
            option("--days", metavar="N", type=number, default=730, help="how long it is valid (730)"),
        ),
        common=(*FILES, "state-dir", "json"),
    ),
    Command(
        name="help",
        group="Help",
        summary="Show the commands, or one of them",
        description="Lists the commands, or shows the options, examples and exit codes of one.",
        examples=(("ucidockd help logs", "The same as `ucidockd logs --help`."),),
        exit_codes=(DONE, USAGE),
        handler="agent.cli.system:show_help",
        arguments=(argument("COMMAND", dest="topic", nargs="*", help="a command"),),
    ),
    Command(
        name="version",
        group="Help",
        summary="Show the version",
        description="Shows the version of ucidockd, as `ucidockd --version` does.",
        examples=(("ucidockd version", ""),),
        exit_codes=(DONE, USAGE),
        handler="agent.cli.system:version",
    ),
)
