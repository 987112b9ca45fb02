# SPDX-License-Identifier: GPL-2.0-or-later
"""`make bench`: runs all benchmarks, or the named ones. Result lines go to stdout, goals and failures to stderr.

The exit code is 1 if a benchmark could not run; with --strict, also if a goal was missed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks import (
    commit_latency,
    daemon,
    first_apply,
    idle_memory,
    load_history,
    proxy_latency,
    reconcile_noop,
    recreate_downtime,
    scale,
    status_cold,
    streams,
    transfers,
    update_check,
    update_in_place,
)
from benchmarks.compose import PeerMissingError
from benchmarks.lab import Lab
from benchmarks.result import Result

BENCHMARKS: dict[str, Callable[[Lab], Iterator[Result]]] = {
    "update-in-place": update_in_place.run,
    "recreate-downtime": recreate_downtime.run,
    **{f"first-apply-{count}": partial(first_apply.run, count=count) for count in first_apply.ROUNDS},
    "export-throughput": transfers.run_export,
    "load-throughput": transfers.run_load,
    "streams": streams.run,
    "update-check": update_check.run,
    "flash-bytes": scale.flash_bytes,
    "scale-1000": scale.run,
    # these share a fleet of running containers, which the last of them removes
    "status-cold": status_cold.run,
    "idle-memory": idle_memory.run,
    "idle-memory-all": idle_memory.run_all,
    "proxy-latency": proxy_latency.run,
    "commit-latency": commit_latency.run,
    "reconcile-noop": reconcile_noop.run,
    "load-history": load_history.run,
    "daemon-noop": daemon.noop,
    "daemon-reload": daemon.reload,
    "daemon-restart": daemon.restart,
}

# result lines that another benchmark produces
WITH = {
    f"{what}-{figure}": f"{what}-throughput" for what in ("export", "load") for figure in ("cpu", "memory")
}


def main() -> int:
    """Runs the benchmarks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all by default"
    )
    parser.add_argument("--strict", action="store_true", help="a missed goal is a failure")
    parser.add_argument(
        "--mebibytes", type=int, default=1024, metavar="N", help="bodies of export and load (default: 1024)"
    )
    args = parser.parse_args()
    names = dict.fromkeys(WITH.get(name, name) for name in args.names or BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if os.geteuid() != 0:
        parser.error("the benchmarks start an engine of their own and need root")
    failed = 0
    lab = Lab(mebibytes=args.mebibytes)
    try:
        lab.start()
        for name in names:
            failed += _run(name, lab, strict=args.strict)
    finally:
        lab.close()
    return 1 if failed else 0


def _run(name: str, lab: Lab, *, strict: bool) -> int:
    """Runs one benchmark; returns the number of failures."""
    failed = 0
    print(f"load  {name}: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", file=sys.stderr, flush=True)
    try:
        for result in BENCHMARKS[name](lab):
            print(result.line(), flush=True)
            print(result.verdict(), file=sys.stderr, flush=True)
            failed += strict and not result.met
    except (PeerMissingError, RuntimeError, OSError) as exc:
        print(f"FAILED {name}: {exc}", file=sys.stderr, flush=True)
        failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
