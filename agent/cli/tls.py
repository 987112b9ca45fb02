# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd tls client NAME`: writes a client's certificates and says how to use them."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from agent.cli.parser import runtime_options
from agent.files.config import load
from agent.model.addresses import is_address
from agent.model.dockerd.values import is_loopback
from agent.tls.certificates import Certificates, ClientBundle

_PORT = 2376  # what docker takes for TLS, and where no host is configured yet


def tls_client(args: argparse.Namespace) -> int:
    """Raises what `Certificates.make_client` raises."""
    options = runtime_options(args)
    desired = load(options).desired
    # what UCI says about dockerd, where that can be read; a port that other hosts reach before one of the router only
    hosts = desired.daemon.hosts if desired and desired.daemon else ()
    tcp = sorted((host for host in hosts if not host.is_unix), key=is_loopback)
    target = Path(args.out or args.name).absolute()
    maker = Certificates(options.state_dir / "tls")
    bundle = maker.make_client(args.name, target, days=args.days, now=time.time())
    print(
        json.dumps(_as_json(bundle), indent=1) if args.json else _text(bundle, tcp[0].port if tcp else _PORT)
    )
    return 0


def _as_json(bundle: ClientBundle) -> dict[str, object]:
    values = asdict(bundle)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _text(bundle: ClientBundle, port: int) -> str:
    end = datetime.fromtimestamp(bundle.expires, UTC).strftime("%Y-%m-%d")
    return "\n".join(
        [
            f"{bundle.directory}: certificate of client {bundle.name}, valid until {end}",
            "Whoever has this folder is root on this router. Move it to the client, and there:",
            f"  export DOCKER_HOST=tcp://{_host(bundle.server_names)}:{port}",
            "  export DOCKER_TLS_VERIFY=1",
            f"  export DOCKER_CERT_PATH=/path/to/{bundle.directory.name}",
            "  docker version",
            "dockerd's certificate is valid for: " + (", ".join(bundle.server_names) or "nothing yet"),
        ]
    )


def _host(names: tuple[str, ...]) -> str:
    """An address or name of the router that works from another host, as far as one is known."""
    local = {"localhost", "127.0.0.1", "::1"}
    known = [name for name in names if name not in local and not name.startswith("*")]
    known.sort(key=lambda name: (":" in name, not is_address(name)))
    if not known:
        return "ROUTER"
    return f"[{known[0]}]" if ":" in known[0] else known[0]
