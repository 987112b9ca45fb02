# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd volume ls|get|put` (the files of volumes), `backup` and `restore`, and `move-data` (all of Docker's data)."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

from agent.cli.ask import AgentError, agent_socket, call, stream, upload
from agent.cli.container import route_name
from agent.cli.output import agreed, columns
from agent.errors import ConfigError, DataError, UsageError
from agent.files.atomic import atomic_file
from agent.model.issues import plain
from agent.model.quantities import size_words
from agent.wire.bodies import TarError, TarReader

_PIECE = 128 * 1024
_GZIP = b"\x1f\x8b"
_MARKS = {"folder": "/", "link": "@", "pipe": "|"}


def volume_ls(args: argparse.Namespace) -> int:
    """Lists the volumes, or a folder of one."""
    if args.name is None:
        return _volumes(args)
    answer = call(agent_socket(args), "GET", _route(args.name, "list", path=args.path or ""))
    if args.json:
        print(json.dumps(answer, indent=1))
        return 0
    rows = [_row(entry) for entry in answer["entries"]]
    lines = columns(("MODE", "OWNER", "SIZE", "MODIFIED", "NAME"), rows)
    print("\n".join(lines) if rows else plain(f"{args.name}:{args.path or '/'} is empty"))
    # on stderr: an incomplete list must not look complete
    if answer["more"]:
        print(f"only the first {len(rows)} entries are listed", file=sys.stderr)
    return 0


def _volumes(args: argparse.Namespace) -> int:
    found = call(agent_socket(args), "GET", "/docker/volumes").get("Volumes") or []
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    rows = [(v["Name"], v["Driver"], v["Mountpoint"]) for v in sorted(found, key=lambda v: str(v["Name"]))]
    lines = columns(("NAME", "DRIVER", "FOLDER"), [tuple(map(plain, row)) for row in rows])
    print("\n".join(lines) if rows else "There are no volumes.")
    return 0


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    name = plain(entry["name"]) + _MARKS.get(entry["kind"], "")
    if entry["link"]:
        name += f" -> {plain(entry['link'])}"
    modified = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry["modified"]))
    return (entry["mode"], f"{entry['uid']}:{entry['gid']}", str(entry["size"]), modified, name)


def volume_get(args: argparse.Namespace) -> int:
    """Writes a volume to a tar file. The file appears only once it is complete."""
    route = _route(args.name, "archive", path=args.path or "", stop="1" if args.stop else "")
    reader = TarReader()
    pieces = stream(agent_socket(args), route)
    if args.file == "-":
        for piece in _read(reader, pieces):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return 0
    size = 0
    with atomic_file(Path(args.file), mode=0o600) as file:
        # atomically, because a half-written archive would look like a backup
        for piece in _read(reader, pieces):
            size += file.write(piece)
    print(f"{args.file}: {reader.members} files, folders and links, {size_words(size)}")
    return 0


def _read(reader: TarReader, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yields the pieces unchanged. Raises DataError if they are not a complete archive."""
    try:
        for piece in pieces:
            reader.feed(piece)
            yield piece
        reader.end()
    except TarError as exc:
        raise DataError(str(exc)) from exc


def volume_put(args: argparse.Namespace) -> int:
    """Unpacks a tar file into a volume."""
    chosen = [name for name in ("path", "replace", "create") if getattr(args, name)]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} cannot be used together")
    query = {name: "1" for name in ("stop", "replace", "create") if getattr(args, name)}
    route = _route(args.name, "archive", path=args.path or "", **query)
    with opened(args.file) as file:
        answer = upload(agent_socket(args), route, unpacked(file))
    print(f"{args.name}: {answer['members']} files, folders and links")
    return 0


@contextlib.contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """The open file; the standard input for `-`."""
    if name == "-":
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


def unpacked(file: BinaryIO) -> Iterator[bytes]:
    """The content of a file, unpacked if gzip packed it, because older engines take only plain archives.
    Raises DataError.
    """
    piece = file.read(_PIECE)
    if not piece.startswith(_GZIP):
        while piece:
            yield piece
            piece = file.read(_PIECE)
        return
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        # in limited steps: a few kilobytes may unpack to gigabytes
        while piece and not inflate.eof:
            while piece:
                yield inflate.decompress(piece, _PIECE)
                piece = inflate.unconsumed_tail
            piece = file.read(_PIECE)
    except zlib.error as exc:
        raise DataError(f"the file is damaged: {exc}") from exc
    if not inflate.eof:
        raise DataError("the file is not complete")


def _route(name: str, what: str, **query: str) -> str:
    asked = urlencode({key: value for key, value in query.items() if value})
    return f"/v1/volumes/{route_name(name)}/{what}" + (f"?{asked}" if asked else "")


# move-data


def move_data(args: argparse.Namespace) -> int:
    """Shows what a move would do, and does it after a confirmation."""
    path = agent_socket(args)
    target = os.path.abspath(args.target)
    found = call(path, "POST", "/v1/move-data/check", body={"target": target})
    # with --json only the job is printed: two documents in one output would not be valid JSON
    if args.check or not args.json:
        print(json.dumps(found, indent=1) if args.json else "\n".join(_foreseen(found)))
    if args.check:
        return 0
    if not args.yes:
        if not sys.stdin.isatty():
            print("Nothing is moved yet; --yes moves it.", file=sys.stderr)
            return 1
        if not agreed("Move it?"):
            return 1
    job = call(path, "POST", "/v1/move-data", body={"target": target})["job"]
    try:
        job = _followed(path, job, quiet=args.json)
    except KeyboardInterrupt:
        # Ctrl-C cancels the move, not only the progress display: a copy must not continue unnoticed
        call(path, "DELETE", f"/v1/jobs/{job['id']}")
        job = _followed(path, job, quiet=args.json)
    if args.json:
        print(json.dumps(job, indent=1))
    if job["state"] != "succeeded":
        why = job["error"]["message"] if job["error"] else "cancelled"
        print(plain(f"{why}; Docker uses {found['source']} as before"), file=sys.stderr)
        return 1
    return 0


def _foreseen(found: dict[str, Any]) -> list[str]:
    # counting takes minutes on a slow disk and runs beside the check, so the first answer may lack the size
    size = size_words(found["bytes"]) if found["bytes"] is not None else "a lot of data (not counted yet)"
    seconds = found["down_s"] if found["down_s"] is not None else "some hundred"
    free = f"{found['file_system']}, {size_words(found['free'])} free"
    lines = [
        f"Copies {size} from {found['source']} to {found['target']} ({free}).",
        "A copy that was cut short is there, and is completed." if found["resumes"] else "",
        f"Containers that stop: {', '.join(found['containers']) or 'none, because none is running'}.",
        "They run during the first copy. They stop while what changed since is copied and dockerd restarts.",
        f"That takes about {seconds} s, more on a slow disk.",
        *(f"Note: {note}." for note in found["notes"]),
        f"The old data stays in {found['source']} until you remove it.",
    ]
    return [plain(line) for line in lines if line]


def _followed(path: str, job: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Prints each step, and on a terminal the progress of the copy; returns the finished job."""
    # the line with the percentage overwrites itself, which does not work in a pipe
    step, shows = "", sys.stderr.isatty() and not quiet
    while True:
        job = call(path, "GET", f"/v1/jobs/{job['id']}")["job"]
        progress = job["progress"]
        if progress["step"] != step and not quiet:
            step = progress["step"]
            print(plain(f"{chr(13) if shows else ''}{step}"))
        if shows and progress["bytes_total"]:
            done, total = size_words(progress["bytes_done"]), size_words(progress["bytes_total"])
            print(f"\r{progress['percent'] or 0} %, {done} of {total}  ", end="", file=sys.stderr, flush=True)
        if job["state"] != "running":
            return job
        time.sleep(0.5)


# backups


def backup(args: argparse.Namespace) -> int:
    """Makes backups and waits for them, or lists them."""
    path = agent_socket(args)
    if args.list:
        return _list_backups(args, path)
    # by the agent's clock, which is that of this machine
    began = time.time()
    answer = _wait(path, call(path, "POST", "/v1/backups", body={"names": args.names}))
    ended = [
        each
        for each in answer["backups"]
        if (not args.names or each["name"] in args.names)
        and each["last"]
        # A second of tolerance, because the agent rounds. Backups that other clients started at the same time count too.
        and each["last"]["ended"] >= began - 1
    ]
    if args.json:
        print(json.dumps(ended, indent=1))
    for each in () if args.json else ended:
        if not each["last"]["message"]:
            for volume, archive in each["last"]["archives"].items():
                place = archive["file"] or "given to the command"
                print(plain(f"{each['name']}: {volume}: {place}, {size_words(archive['bytes'])}"))
    wrong = [each for each in ended if each["last"]["message"]]
    for each in wrong:
        print(plain(f"{each['name']}: {each['last']['message']}"), file=sys.stderr)
    # an unknown name has no result, which is not a success
    return 1 if wrong or not ended else 0


def _list_backups(args: argparse.Namespace, path: str) -> int:
    sections = call(path, "GET", "/v1/backups")["backups"]
    if args.names:
        sections = [section for section in sections if section["name"] in args.names]
    rows = []
    for section in sections:
        last = section["last"]
        how = "never" if last is None else last["message"] or "succeeded"
        rows.append((section["name"], section["schedule"], _when(last["ended"]) if last else "", how))
        if section["target"]:
            # only for targets that can be listed: what a command does with an archive is not known
            try:
                found = call(path, "GET", f"/v1/backups/{route_name(section['name'])}")["archives"]
            except AgentError as exc:
                # one disk that is away hides neither the other sections nor this one's last result
                section["error"] = str(exc)
                rows.append(("", "", "", str(exc)))
                continue
            section["archives"] = found
            rows += [("", each["volume"], size_words(each["bytes"]), each["file"]) for each in found]
    if args.json:
        print(json.dumps(sections, indent=1))
    elif not rows:
        print(f"There is no {'such ' if args.names else ''}`config backup` section.")
    else:
        print(
            "\n".join(columns(("NAME", "SCHEDULE", "LAST", "RESULT"), [tuple(map(plain, r)) for r in rows]))
        )
    return 0


def restore(args: argparse.Namespace) -> int:
    """Restores a volume from an archive."""
    path = agent_socket(args)
    if args.source:
        return _restore_from(args, path)
    body = {"volume": args.volume or "", "into": args.into or ""}
    answer = _wait(path, call(path, "POST", f"/v1/backups/{route_name(args.name)}/restore", body=body))
    restored = answer["restored"] or {}
    if args.json:
        print(json.dumps(restored, indent=1))
    if "error" in restored:
        print(plain(f"nothing is changed: {restored['error']}"), file=sys.stderr)
        return 1
    if not args.json:
        print(plain(f"volume {restored['volume']} has the files of {restored['file']}"))
    return 0


def _restore_from(args: argparse.Namespace, path: str) -> int:
    sections = {each["name"]: each for each in call(path, "GET", "/v1/backups")["backups"]}
    volumes = sections[args.name]["volumes"] if args.name in sections else []
    volume = args.volume or (volumes[0] if len(volumes) == 1 else "")
    # an archive does not name the volume that it came from
    if volume not in volumes:
        raise ConfigError(f"{args.name} saves {', '.join(volumes) or 'nothing'}: say which with --volume")
    query = {"create": "1"} if args.into else {"replace": "1"}
    with opened(args.source) as file:
        answer = upload(path, _route(args.into or volume, "archive", **query), unpacked(file))
    if args.json:
        print(json.dumps(answer))
    else:
        print(
            plain(
                f"volume {args.into or volume} has the files of {'the archive' if args.source == '-' else args.source}"
            )
        )
    return 0


def _wait(path: str, answer: Any) -> Any:
    """Waits until no backup or restore is running."""
    while answer["running"]:
        time.sleep(0.5)
        answer = call(path, "GET", "/v1/backups")
    return answer


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
