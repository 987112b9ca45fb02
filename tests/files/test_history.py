# SPDX-License-Identifier: GPL-2.0-or-later
"""Earlier settings of a section: which are kept, and that little is written for them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.files.state import KEPT, SettingsHistory
from agent.model.identity import Key
from agent.model.observed import Record
from agent.model.resources import Desired


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.sampled_from(["a", "b", "c\n", "ü'\n"]), max_size=25),
    restarts=st.sets(st.integers(0, 24)),
)
def test_the_last_changes_are_kept_and_numbers_are_never_used_again(
    tmp_path_factory: object, texts: list[str], restarts: set[int]
) -> None:
    folder = Path(tmp_path_factory.mktemp("history"))  # type: ignore[attr-defined]
    history = SettingsHistory(folder / "history")
    changes: list[str] = []
    for index, text in enumerate(texts):
        if index in restarts:
            history = SettingsHistory(folder / "history")
        history.keep("web", text, at=1000.0 + index)
        if not changes or changes[-1] != text:
            changes.append(text)
    found = history.versions("web")
    assert [version.text for version in found] == changes[-KEPT:]
    assert [version.number for version in found] == list(range(1, len(changes) + 1))[-KEPT:]


def test_what_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    history = SettingsHistory(tmp_path / "history")
    history.keep("web", "text", at=1.0)
    before = (tmp_path / "history" / "web.json").stat()
    history.keep("web", "text", at=2.0)
    SettingsHistory(tmp_path / "history").keep("web", "text", at=3.0)
    after = (tmp_path / "history" / "web.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert after.st_mode & 0o777 == 0o600


def test_a_damaged_file_is_an_empty_history(tmp_path: Path) -> None:
    history = SettingsHistory(tmp_path)
    for data in (b"", b"{", b'{"versions": [{}]}', b'{"versions": 3}', b"[]", b"\xff"):
        (tmp_path / "web.json").write_bytes(data)
        assert history.versions("web") == ()
        SettingsHistory(tmp_path).keep("web", "text", at=1.0)
        assert [version.text for version in history.versions("web")] == ["text"]


def test_it_moves_with_a_renamed_section_and_goes_with_a_removed_one(tmp_path: Path) -> None:
    history = SettingsHistory(tmp_path)
    history.keep("web", "text", at=1.0)
    history.move("web", "site")
    history.move("other", "nothing")
    assert (history.versions("web"), history.versions("site")[0].text) == ((), "text")
    history.forget("site")
    history.forget("site")
    assert history.versions("site") == ()


def test_what_was_made_is_kept_though_its_section_was_edited_before_anyone_looked(tmp_path: Path) -> None:
    history, key = SettingsHistory(tmp_path), Key("container", "web")

    def look(wanted: str, made_of: str, *, busy: bool = False) -> None:
        desired = Desired(containers=(), generation=wanted, spec_hashes={key: wanted})
        record = Record(
            kind="container", section="web", name="web", object_id="id", nonce="n", spec_hash=made_of
        )
        texts = {"web": f"text {wanted}"}
        history.keep_applied(desired, texts, [record] if made_of else [], {key} if busy else set(), at=1.0)

    look("1", "")
    look("2", "", busy=True)  # edited while it is made
    look("2", "1")
    assert [version.text for version in history.versions("web")] == ["text 1"]
    look("3", "1", busy=True)
    look("4", "2")
    look("4", "4")
    assert [version.text for version in history.versions("web")] == ["text 1", "text 2", "text 4"]
