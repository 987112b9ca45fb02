# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands about volumes, backups and where Docker keeps its data."""

from __future__ import annotations

from agent.cli.commands.row import USAGE, USUAL, Command, argument, flag, option

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
            "Writes a volume, or a file or folder of it, to a tar file. The file appears only once it is complete and was"
            " found whole. A program that writes meanwhile may leave the copy half-way between two states: use --stop for"
            " databases."
        ),
        examples=(
            ("ucidockd volume get data data.tar --stop", "Stop what mounts it, copy it, start it again."),
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
            "Unpacks a tar file, also one that gzip packed, into a volume, over what is there. With --replace the archive"
            " takes the place of all files of the volume: it goes into a temporary volume first, so that a damaged"
            " archive costs nothing, and the managed containers that mount the volume stop only for the moment of the"
            " exchange."
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
            flag("--create", help="make the volume, which must not exist"),
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
            " is compared with the data before it is used. If anything fails, the old data is used again. To continue a"
            " move that was cut short, give the same command again. The old data stays until you remove it; the command"
            " for that is shown at the end."
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
            " before it counts. With --list it shows how the last ones ended and which archives there are.\n"
            "A section such as `config backup 'nightly'` has `list section 'db'`, `option target '/mnt/sda1/backups'` and"
            " `option schedule 'daily'`."
        ),
        examples=(
            ("ucidockd backup", "Make all of them."),
            ("ucidockd backup nightly", "Make one."),
            ("ucidockd backup --list", "Show what there is."),
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
            "Gives a volume the files of an archive: the newest of the backup section, or the one that you name. They go"
            " into a temporary volume first, so that a damaged archive changes nothing; the managed containers that mount"
            " the volume stop only for the moment of the exchange. With --into a new volume gets the files."
        ),
        examples=(
            ("ucidockd restore nightly --volume data", "The newest archive of volume `data`."),
            (
                "ucidockd restore nightly --from old.tar --into data_old",
                "An older one, beside what there is.",
            ),
            ("restic dump latest data.tar | ucidockd restore nightly --from -", "From a command's archive."),
        ),
        exit_codes=USUAL,
        handler="agent.cli.data:restore",
        arguments=(argument("NAME", dest="name", help="a backup section"),),
        options=(
            option("--volume", metavar="VOLUME", help="which volume, where the section saves several"),
            option("--from", dest="source", metavar="FILE", help="an archive; `-` is the standard input"),
            option("--into", metavar="VOLUME", help="make this new volume and leave the old one as it is"),
        ),
        common=_AGENT_ONLY,
    ),
)
