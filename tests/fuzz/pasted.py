# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzz targets for what people paste into an import: `docker run` lines and compose files.

Any text either becomes sections or is refused with a message.
"""

from __future__ import annotations

import contextlib

from agent.convert.requests import ImportRequest, convert
from agent.errors import ConfigError
from tests.fuzz.target import Target, as_text


def _convert(request: ImportRequest) -> None:
    with contextlib.suppress(ConfigError):
        convert(request, {}, read_file=lambda _: "A=b\n")


_RUN = b"docker run"
RUN_LINES = Target(
    name="run-line",
    check=lambda data: _convert(ImportRequest(run=as_text(data))),
    seeds=(
        b"docker run -d --name=web -p 8080:80 -v /srv:/data:ro -e A=\"b c\" --restart always nginx sh -c 'echo $A'",
        b"$ sudo docker run \\\n> -it --rm \\\n> --mount type=bind,src=$(pwd),dst=/x --env-file .env ${TAG:-a/b:${V:-1}}",
        b"A=1; docker network create lan\npodman create --network lan,ip=10.0.0.2 --gpus all x >log 2>&1 # end\n",
    ),
    words=(
        b"docker run ",
        b" -",
        b"--",
        b"=",
        b"$",
        b"${",
        b"}",
        b"$(",
        b")",
        b"`",
        b"\\\n",
        b">",
        b"'",
        b'"',
        b":-",
    ),
    repeats=tuple(
        (_RUN, piece)
        for piece in (
            b" $(",
            b" ${",
            b" ${a:-",
            b" ${a:-b}",
            b" \\\n> a",
            b" >",
            b" '",
            b" `",
            b" -e A=b",
            b" -p 1:2",
        )
    ),
)
COMPOSE = Target(
    name="compose-file",
    check=lambda data: _convert(ImportRequest(compose=as_text(data))),
    seeds=(
        (
            b"services:\n  web:\n    image: nginx:${TAG:-1}\n    ports: ['80:80', {target: 443, published: '8443'}]\n"
            b"    environment: {A: b, C: null}\n    volumes: ['./x:/y:ro', data:/d]\n"
            b"    depends_on: {db: {condition: service_healthy}}\n"
            b"  db:\n    image: db\n    healthcheck: {test: [CMD, 'true'], interval: 1m}\n"
            b"    deploy: {resources: {limits: {cpus: '0.5'}}}\n"
            b"volumes:\n  data: {driver_opts: {type: nfs}}\n"
        ),
        b'{"services": {"a": {"image": "b", "network_mode": "service:a", "ulimits": {"nofile": {"soft": 1}}}}}',
    ),
    words=(
        b"services:\n",
        b"  ",
        b": ",
        b"- ",
        b"[",
        b"]",
        b"{",
        b"}",
        b"&a ",
        b"*a",
        b"<<: ",
        b"${",
        b"!reset ",
        b"null",
    ),
    repeats=(
        (b"services:\n  a:\n    image: x\n    command: ", b"${a:-"),
        (b"", b"&a [*a,"),
        (b"services: {a: {image: ", b"["),
    ),
)
TARGETS = (RUN_LINES, COMPOSE)
