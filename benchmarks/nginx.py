# SPDX-License-Identifier: GPL-2.0-or-later
"""The API's peer: Debian's nginx as a reverse proxy in front of dockerd's socket, without buffering."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compose import PeerMissingError
from benchmarks.lab import wait_for

_CONFIG = """\
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_max_body_size 0;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/unused;
  uwsgi_temp_path {folder}/unused;
  scgi_temp_path {folder}/unused;
  server {{
    listen unix:{socket};
    location / {{
      proxy_pass http://unix:{engine}:;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 1h;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nginx:
    """`pid` is that of the worker, which does all the work."""

    socket: Path
    pid: int


@contextlib.contextmanager
def nginx(folder: Path, engine: Path) -> Iterator[Nginx]:
    """nginx with one worker, on a unix socket. Raises PeerMissingError."""
    program = shutil.which("nginx")
    if program is None:
        raise PeerMissingError("there is no nginx to compare with (package nginx-light)")
    folder.mkdir()
    socket = folder / "nginx.sock"
    config = folder / "nginx.conf"
    config.write_text("user root;\n" + _CONFIG.format(folder=folder, socket=socket, engine=engine))
    command = [program, "-p", str(folder), "-c", str(config), "-g", "daemon off;"]
    with (folder / "stderr").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        wait_for(lambda: socket.exists() and children.read_text().split(), "nginx's worker", 10)
        yield Nginx(socket=socket, pid=int(children.read_text().split()[0]))
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
