# SPDX-License-Identifier: GPL-2.0-or-later
"""Every flag of `docker container run` has an option, or `docs/docker-run-flags.md` says why it has none.

The list of flags is of docker/cli (`cli/command/container/opts.go` and `run.go`): add those of a new version to it.
"""

from __future__ import annotations

import re
from pathlib import Path

from agent.convert.docker_flags import FLAGS as TABLE
from agent.schema.validate import properties

ROOT = Path(__file__).parents[2]
FLAGS = (ROOT / "tests" / "data" / "docker-run-flags.txt").read_text().split()
ROW = re.compile(r"\| `--([a-z0-9-]+)` \| (?:`([a-z0-9_]+)` )?\|(.*)\|")
ROWS = ROW.findall((ROOT / "docs" / "docker-run-flags.md").read_text())


def test_every_flag_has_one_row() -> None:
    assert [flag for flag, _, _ in ROWS] == FLAGS == sorted(set(FLAGS))


def test_a_row_names_an_option_or_says_why_there_is_none() -> None:
    for flag, option, remark in ROWS:
        assert option in properties("container") if option else remark.strip(), flag


def test_an_import_takes_each_flag_to_that_option() -> None:
    assert {flag.name: flag.option for flag in TABLE} == {flag: option for flag, option, _ in ROWS}
