# SPDX-License-Identifier: GPL-2.0-or-later
"""Every flag of `docker container run` has an option, or the table says why it has none.

The list of flags is of docker/cli (`cli/command/container/opts.go` and `run.go`): add those of a new version to it.
"""

from __future__ import annotations

from pathlib import Path

from agent.convert.command_line import FLAGS as TABLE
from agent.schema.validate import properties

FLAGS = (Path(__file__).parents[1] / "data" / "docker-run-flags.txt").read_text().split()


def test_every_flag_has_one_row() -> None:
    assert [flag.name for flag in TABLE] == FLAGS == sorted(set(FLAGS))


def test_a_row_names_an_option_or_says_why_there_is_none() -> None:
    for flag in TABLE:
        assert flag.option in properties("container") if flag.option else flag.reason, flag.name
