# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a volume gets on trial: killed before any step, the old ones come back, or the new ones stay."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from agent.data import places
from agent.data.places import EngineVolume


class KilledError(BaseException):
    """The agent ends here."""


def a_volume(root: Path, name: str, text: str) -> EngineVolume:
    place = root / name / "_data"
    place.mkdir(parents=True)
    (place / "file").write_text(text)
    return EngineVolume(name=name, driver="local", place=place, is_plain=True, labels={})


def killed_before(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The rename after `step` others never happens."""
    rename, left = Path.rename, step

    def limited(self: Path, target: Path) -> Path:
        nonlocal left
        if not left:
            raise KilledError
        left -= 1
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", limited)


@pytest.mark.parametrize("lent", range(3))
@pytest.mark.parametrize("back", range(3))
def test_nothing_is_lost_wherever_it_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lent: int, back: int
) -> None:
    copy, volume = a_volume(tmp_path, "copy", "then"), a_volume(tmp_path, "data", "now")
    for step, act in ((lent, places.lend), (back, places.take_back)):
        with monkeypatch.context() as patched:
            killed_before(patched, step)
            with contextlib.suppress(KilledError):
                act(copy, volume)
    if (back, lent) == (2, 1):
        places.lend(copy, volume)  # an agent may also begin it anew
    places.take_back(copy, volume)
    places.take_back(copy, volume)
    assert (volume.place / "file").read_text() == "now"
    assert (copy.place / "file").read_text() == "then"
    places.lend(copy, volume)
    places.lend(copy, volume)
    assert (volume.place / "file").read_text() == "then"
    assert places.settle(copy)
    places.take_back(copy, volume)  # it is settled
    assert (volume.place / "file").read_text() == "then"
    assert (copy.place / "file").read_text() == "now"
