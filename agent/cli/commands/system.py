# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands about the machine: the agent, dockerd, volumes, backups, where Docker keeps its data, and help."""

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

_VOLUME = argument("NAME", dest="name", help="a volume, by its Docker name")
_STOP_FOR_COPY = flag("--stop", help="stop the managed containers that mount it meanwhile")
_AGENT_ONLY = ("config-dir", "override-dir", "socket", "json")

COMMANDS = (
    Command(
        name="volume ls",
        group="Data",
        summary="List the volumes, or the files of one",
        description="Lists the volumes of the engine. With a name it lists the entries of a folder of that volume.",
        examples=(
            ("ucidockd volume ls", "The volumes."),
            ("ucidockd volume ls data backups", "What is in the folder `backups` of volume `data`."),
        ),
        exit_codes=USUAL,
        handler="agent.cli.data:volume_ls",
        arguments=(
            _VOLUME._replace(settings={**_VOLUME.settings, "nargs": "?"}),
            argument("PATH", dest="path", nargs="?", help="a folder of the volume"),
        ),
        common=("config-dir", "override-dir", "socket", "json"),
    ),
    Command(
        name="volume get",
        group="Data",
        summary="Write a volume to a tar file",
        description=(
            "Writes a volume, or a file or folder of it, to a tar file. The file appears only when it is complete. If a"
            " program writes to the volume meanwhile, the copy may be inconsistent: use --stop for databases."
        ),
        examples=(
            ("ucidockd volume get data data.tar --stop", "Stop its containers, copy it, start them again."),
            ("ucidockd volume get data - | ssh nas 'cat >data.tar'", "Send it to another machine."),
        ),
        exit_codes=USUAL,
        handler="agent.cli.data:volume_get",
        arguments=(
            _VOLUME,
            argument("FILE", dest="file", help="the file to write; `-` is the standard output"),
        ),
        options=(option("--path", metavar="PATH", help="only this file or folder of it"), _STOP_FOR_COPY),
        common=("config-dir", "override-dir", "socket"),
    ),
    Command(
        name="volume put",
        group="Data",
        summary="Unpack a tar file into a volume",
        description=(
            "Unpacks a tar file, which may be compressed with gzip, into a volume, over its files. With --replace the"
            " archive replaces all files of the volume: it goes into a temporary volume first, so that a damaged archive"
            " does no harm, and the managed containers that mount the volume stop only for the moment of the exchange."
        ),
        examples=(
            ("ucidockd volume put data data.tar --replace", "Put a volume back as it was."),
            ("ucidockd volume put copy data.tar --create", "Make a new volume of it."),
            ("ucidockd volume put site pages.tar.gz --path html", "Add files to a folder."),
        ),
        exit_codes=USUAL,
        handler="agent.cli.data:volume_put",
        arguments=(_VOLUME, argument("FILE", dest="file", help="the archive; `-` is the standard input")),
        options=(
            option("--path", metavar="PATH", help="a folder of the volume to unpack into"),
            flag("--replace", help="replace all files of the volume, or none"),
            flag("--create", help="create the volume, which must not exist"),
            _STOP_FOR_COPY,
        ),
        common=("config-dir", "override-dir", "socket"),
    ),
    Command(
        name="move-data",
        group="Data",
        summary="Move Docker's data to another disk",
        description=(
            "Copies images, containers and volumes from `data_root` to an empty folder, sets `data_root`, and starts the"
            " same engine there. It first shows how much there is to copy, which containers stop and for how long, and"
            " asks. Containers keep running while the first copy is made, and stop only for what changed since. The copy"
            " is compared with the data before it is used. If anything fails, the old data is used again. To continue an"
            " interrupted move, run the same command again. The old data stays until you remove it; the command for that"
            " is shown at the end."
        ),
        examples=(
            ("ucidockd move-data --check /mnt/sda1/docker", "What the move would do."),
            ("ucidockd move-data /mnt/sda1/docker", "The same, and do it after a question."),
        ),
        exit_codes=(
            (0, "done"),
            (1, "it cannot be moved, failed or was cancelled: the old data is in use"),
            USAGE,
        ),
        handler="agent.cli.data:move_data",
        arguments=(argument("TARGET", dest="target", help="an empty folder on the new disk"),),
        options=(
            flag("--check", help="only show what the move would do"),
            flag("-y", "--yes", help="without a question"),
        ),
        common=_AGENT_ONLY,
    ),
    Command(
        name="backup",
        group="Data",
        summary="Make backups now, or list them",
        description=(
            "Makes the backups of `config backup` sections now and waits for them. Each archive is read back and compared"
            " before it counts. With --list it shows the last results and the archives.\n"
            "A section such as `config backup 'nightly'` has `list section 'db'`, `option target '/mnt/sda1/backups'` and"
            " `option schedule 'daily'`."
        ),
        examples=(
            ("ucidockd backup", "Make all of them."),
            ("ucidockd backup nightly", "Make one."),
            ("ucidockd backup --list", "Show results and archives."),
        ),
        exit_codes=USUAL,
        handler="agent.cli.data:backup",
        arguments=(argument("NAME", dest="names", nargs="*", help="a backup section"),),
        options=(flag("--list", help="show the last results and the archives"),),
        common=_AGENT_ONLY,
    ),
    Command(
        name="restore",
        group="Data",
        summary="Put a volume back from a backup",
        description=(
            "Restores the files of a volume from an archive: the newest of the backup section, or the one that you name."
            " They go into a temporary volume first, so that a damaged archive changes nothing; the managed containers"
            " that mount the volume stop only for the moment of the exchange. With --into the files go into a new volume."
        ),
        examples=(
            ("ucidockd restore nightly --volume data", "The newest archive of volume `data`."),
            (
                "ucidockd restore nightly --from old.tar --into data_old",
                "An older one, into a new volume.",
            ),
            ("restic dump latest data.tar | ucidockd restore nightly --from -", "An archive from a command."),
        ),
        exit_codes=USUAL,
        handler="agent.cli.data:restore",
        arguments=(argument("NAME", dest="name", help="a backup section"),),
        options=(
            option("--volume", metavar="VOLUME", help="the volume, if the section saves several"),
            option("--from", dest="source", metavar="FILE", help="an archive; `-` is the standard input"),
            option("--into", metavar="VOLUME", help="create this volume and leave the old one as it is"),
        ),
        common=_AGENT_ONLY,
    ),
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
            " in that state. On OpenWrt `/etc/init.d/ucidockd start` runs it as a service, with systemd `systemctl start"
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
            " Anyone who has this folder controls the router."
        ),
        examples=(("ucidockd tls client laptop", "Write ./laptop with ca.pem, cert.pem and key.pem."),),
        exit_codes=USUAL,
        handler="agent.cli.system:tls_client",
        arguments=(argument("NAME", dest="name", help="letters, digits and . _ @ -"),),
        options=(
            option("--out", metavar="DIR", help="folder to create (./NAME)"),
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
