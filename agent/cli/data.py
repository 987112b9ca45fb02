# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd volume ls|get|put`: the files of volumes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

from agent.cli.agent_client import call, stream, upload
from agent.cli.ask import agent_socket
from agent.cli.container import route_name
from agent.cli.output import columns
from agent.errors import ConfigError, DataError
from agent.files.atomic import sync_directory
from agent.model.issues import plain
from agent.wire.tar import TarError, TarReader

_PIECE = 128 * 1024
_GZIP = b"\x1f\x8b"
_MARKS = {"folder": "/", "link": "@", "pipe": "|"}


def volume_ls(args: argparse.Namespace) -> int:
    """The volumes, or a folder of one."""
    if args.name is None:
        return _volumes(args)
    answer = call(agent_socket(args), "GET", _route(args.name, "list", path=args.path or ""))
    if args.json:
        print(json.dumps(answer, indent=1))
        return 0
    rows = [_row(entry) for entry in answer["entries"]]
    print("\n".join(columns(("MODE", "OWNER", "SIZE", "MODIFIED", "NAME"), rows)))
    if answer["more"]:
        print(f"only the first {len(rows)} entries are listed", file=sys.stderr)
    return 0


def _volumes(args: argparse.Namespace) -> int:
    found = call(agent_socket(args), "GET", "/docker/volumes").get("Volumes") or []
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    rows = [(v["Name"], v["Driver"], v["Mountpoint"]) for v in sorted(found, key=lambda v: str(v["Name"]))]
    print("\n".join(columns(("NAME", "DRIVER", "FOLDER"), [tuple(map(plain, row)) for row in rows])))
    return 0


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    name = plain(entry["name"]) + _MARKS.get(entry["kind"], "")
    if entry["link"]:
        name += f" -> {plain(entry['link'])}"
    modified = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry["modified"]))
    return (entry["mode"], f"{entry['uid']}:{entry['gid']}", str(entry["size"]), modified, name)


def volume_get(args: argparse.Namespace) -> int:
    """A volume into a tar file, which is there only if it is whole."""
    route = _route(args.name, "archive", path=args.path or "", stop="1" if args.stop else "")
    reader = TarReader()
    pieces = stream(agent_socket(args), route)
    if args.file == "-":
        for piece in _read(reader, pieces):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return 0
    size = save(Path(args.file), _read(reader, pieces))
    print(f"{args.file}: {reader.members} files, folders and links, {size} bytes")
    return 0


def save(target: Path, pieces: Iterator[bytes]) -> int:
    """A new file, in place once it is whole; its bytes. Raises OSError, and what the pieces raise."""
    folder = target.absolute().parent
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            size = sum(file.write(piece) for piece in pieces)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    sync_directory(folder)
    return size


def _read(reader: TarReader, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces. Raises DataError where they are not a whole archive."""
    try:
        for piece in pieces:
            reader.feed(piece)
            yield piece
        reader.end()
    except TarError as exc:
        raise DataError(str(exc)) from exc


def volume_put(args: argparse.Namespace) -> int:
    """A tar file into a volume."""
    chosen = [name for name in ("path", "replace", "create") if getattr(args, name)]
    if len(chosen) > 1:
        raise ConfigError(f"--{chosen[0]} and --{chosen[1]} do not go together")
    query = {name: "1" for name in ("stop", "replace", "create") if getattr(args, name)}
    route = _route(args.name, "archive", path=args.path or "", **query)
    with opened(args.file) as file:
        answer = upload(agent_socket(args), route, unpacked(file))
    print(f"{args.name}: {answer['members']} files, folders and links")
    return 0


@contextlib.contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """A file, or the standard input for `-`."""
    if name == "-":
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


def unpacked(file: BinaryIO) -> Iterator[bytes]:
    """What a file holds, also where gzip packed it: older engines take plain archives only. Raises DataError."""
    piece = file.read(_PIECE)
    if not piece.startswith(_GZIP):
        while piece:
            yield piece
            piece = file.read(_PIECE)
        return
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
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
