# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tests.fuzz TARGET [--seconds N] [--seed N]`: fuzzes until something is found or the time is over.

With atheris installed (`pip install atheris`) mutation is guided by coverage, else it is blind; `--blind` wants it blind.
`--replay FILE` runs one input. Exit code 1: found; the input is in `build/fuzz/TARGET-<sha>` and named on standard error.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import itertools
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz.target import Target, run

FOUND = Path("build/fuzz")


def main() -> int:
    options = _options()
    if options.replay:
        from tests.fuzz.targets import TARGETS

        run(TARGETS[options.target], options.replay.read_bytes())
        return 0
    if importlib.util.find_spec("atheris") and not options.blind:
        return _guided(options.target, options.seconds, options.seed)
    from tests.fuzz.mutate import inputs
    from tests.fuzz.targets import TARGETS

    target, end, count = TARGETS[options.target], time.monotonic() + options.seconds, 0
    for data in inputs(target, options.seed):
        if not _holds(target, data):
            return 1
        count += 1
        if count % 16 == 0 and time.monotonic() > end:
            break
    print(f"fuzz {target.name}: {count} inputs, seed {options.seed}, nothing found")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--blind", action="store_true", help="without atheris")
    parser.add_argument("--replay", type=Path, help="a file with one input")
    return parser.parse_args()


def _guided(name: str, seconds: int, seed: int) -> int:
    """libFuzzer's loop over our code's coverage. It ends the process itself, but for what is found."""
    import atheris

    with atheris.instrument_imports(include=["agent"], enable_loader_override=False):
        from tests.fuzz.mutate import inputs
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    words = "".join(f'"{_hex(word)}"\n' for word in target.words if len(word) < 64)
    with tempfile.TemporaryDirectory() as folder:
        corpus, dictionary = Path(folder, "corpus"), Path(folder, "words")
        corpus.mkdir()
        dictionary.write_text(words)
        for number, data in enumerate(itertools.islice(inputs(target, seed), len(target.seeds) + 200)):
            (corpus / str(number)).write_bytes(data)
        arguments = [
            "fuzz", f"-max_total_time={seconds}", f"-seed={seed + 1}", f"-max_len={target.size}", "-timeout=20",
            "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=0", f"-dict={dictionary}",
            f"-artifact_prefix={folder}/", str(corpus),
        ]  # fmt: skip

        def one(data: bytes) -> None:
            if not _holds(target, data):
                sys.exit(1)

        atheris.Setup(arguments, one)
        atheris.Fuzz()
    return 0


def _hex(word: bytes) -> str:
    """As libFuzzer's dictionaries write bytes."""
    return "".join(f"\\x{byte:02x}" for byte in word)


def _holds(target: Target, data: bytes) -> bool:
    """Whether an input does no harm; what does is kept."""
    try:
        run(target, data)
    except Exception:
        FOUND.mkdir(parents=True, exist_ok=True)
        path = FOUND / f"{target.name}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        traceback.print_exc()
        print(
            f"fuzz {target.name}: {data[:200]!r}\nreplay: python -m tests.fuzz {target.name} --replay {path}",
            file=sys.stderr,
        )
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
