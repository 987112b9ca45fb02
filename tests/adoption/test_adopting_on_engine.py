# SPDX-License-Identifier: GPL-2.0-or-later
"""`POST /v1/adopt` and `ucidockd adopt`: previews, refusals, and writers that come between."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConflictError, StorageError, UcidockdError
from agent.runtime.requests.adopt import AdoptRequest, adopt_container
from agent.uci.syntax import Package
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX, PrivateDockerd


def make(box: Box, name: str, **more: Any) -> None:
    """Made and not started: that is enough to be looked at."""
    box.client.containers.create(BUSYBOX, ["sleep", "1000"], name=name, **more)


def adopt(box: Box, name: str, **more: Any) -> dict[str, Any]:
    return adopt_container(box.reconciler, AdoptRequest(container=name, **more))


OTHER = "# mine\nconfig container 'other'\n\toption image 'IMAGE'\n\toption enabled '0'\n"


def test_a_preview_writes_nothing_and_shows_no_secret(box: Box) -> None:
    box.write(OTHER)
    before = (box.config / "containers").read_text()
    command = ["sh", "-c", "sleep 1000", "--token=S3CRET-b"]
    labels = {"api_key": "S3CRET-c", "plain": "d"}
    box.client.containers.create(BUSYBOX, command, name="web", environment={"PW": "S3CRET-a"}, labels=labels)
    answer = adopt(box, "web")
    assert not answer["committed"]
    assert (box.config / "containers").read_text() == before
    assert "S3CRET" not in str(answer)
    assert "list label 'plain=d'" in answer["text"]
    shown = adopt(box, "web", show_secrets=True)["text"]
    assert all(f"S3CRET-{letter}" in shown for letter in "abc")


def test_a_commit_keeps_the_other_sections_and_says_that_comments_are_lost(box: Box) -> None:
    box.write(OTHER)
    make(box, "web", environment={"PW": "S3CRET"})
    answer = adopt(box, "web", section="site", commit=True)
    text = (box.config / "containers").read_text()
    assert "config container 'other'" in text
    assert "config container 'site'\n\toption name 'web'" in text
    assert "list env 'PW=S3CRET'" in text
    assert answer["notes"] == [f"the comments in {box.config / 'containers'} are lost, as with `uci commit`"]


def test_another_writer_in_between_is_not_overwritten(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.write(OTHER)
    make(box, "web")
    commit = box.reconciler.store.commit
    writes = iter([OTHER.replace("'other'", "'second'"), OTHER.replace("'other'", "'third'")])

    def meddle(package: Package, *, expected: str | None = None) -> None:
        if (text := next(writes, None)) is not None:
            box.write(text)
        commit(package, expected=expected)

    monkeypatch.setattr(box.reconciler.store, "commit", meddle)
    adopt(box, "web", commit=True)
    text = (box.config / "containers").read_text()
    assert ("'third'" in text, "'other'" in text, "config container 'web'" in text) == (True, False, True)


def test_the_file_is_made_where_there_is_none(box: Box) -> None:
    make(box, "web")
    adopt(box, "web", commit=True)
    assert "config container 'web'" in (box.config / "containers").read_text()


REFUSED = {
    "no such container": ("", "nobody", {}, "there is no container nobody"),
    "managed already": ("", "ours", {}, "ours is managed already, by the section ours"),
    "declared already": ("'web'", "web", {}, "the section web declares web: `option adopt 1` there"),
    "removed when it stops": ("", "web", {"auto_remove": True}, "web was run with --rm"),
    "a port that another section has": (
        "'p'\n\tlist port '18575:1'\n\toption image 'x'",
        "web",
        {"ports": {"80/tcp": 18575}},
        "host ports taken by other containers: 18575/tcp (p)",
    ),
}


@pytest.mark.parametrize(("text", "name", "more", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_adopted_is_refused(
    box: Box, text: str, name: str, more: dict[str, Any], error: str
) -> None:
    ours = (
        "config container 'ours'\n\toption image 'IMAGE'\n\toption command 'true'\n\toption state 'stopped'\n"
    )
    box.apply(ours)
    make(box, "web", **more)
    box.write(ours + (f"config container {text}\n\toption image 'IMAGE'\n" if text else ""))
    before = (box.config / "containers").read_text()
    with pytest.raises(UcidockdError) as found:
        adopt(box, name, commit=True)
    assert error in str(found.value)
    assert (box.config / "containers").read_text() == before


@pytest.mark.parametrize("section", ["a-b", "other", "x y"])
def test_a_section_name_that_cannot_be_had_is_refused(box: Box, section: str) -> None:
    box.write(OTHER)
    make(box, "web")
    with pytest.raises(UcidockdError, match="expected a free name"):
        adopt(box, "web", section=section)


def test_what_uci_has_no_words_for_is_left_out_and_noted(box: Box, tmp_path: Path) -> None:
    box.write("\n")
    odd = tmp_path / "a b"
    odd.mkdir()
    make(box, "web", labels={" odd": "x", "fine": "y"}, volumes={str(odd): {"bind": "/odd", "mode": "rw"}})
    answer = adopt(box, "web")
    assert "fine=y" in answer["text"]
    assert " odd=" not in answer["text"]
    assert f"list volume '{odd}:/odd'" in answer["text"]
    assert [note.partition(":")[0] for note in answer["notes"]] == ["web.label"]
    # the label may be what a proxy finds it by: nothing is replaced without being asked
    with pytest.raises(ConflictError, match=r"web is not adopted, .*web\.label.*append what"):
        adopt(box, "web", commit=True)
    assert (box.config / "containers").read_text() == "\n"


def test_a_read_only_configuration_is_said_and_stays(box: Box) -> None:
    box.write(OTHER)
    before = (box.config / "containers").read_text()
    make(box, "web")
    subprocess.run(["mount", "--bind", box.config, box.config], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", box.config], check=True)
        with pytest.raises(StorageError, match="containers cannot be written: Read-only file system"):
            adopt(box, "web", commit=True)
    finally:
        subprocess.run(["umount", box.config], check=True)
    assert (box.config / "containers").read_text() == before


def test_a_tag_that_has_moved_is_told_with_the_adoption(box: Box, engine: PrivateDockerd) -> None:
    """As in a running agent, whose passes inspect only what changed."""
    engine.import_busybox("moved:1", ["LABEL v=1"])
    box.client.containers.run("moved:1", ["sleep", "1000"], name="web", detach=True)
    engine.import_busybox("moved:1", ["LABEL v=2"])
    box.apply("")
    box.write(
        "config container 'web'\n\toption image 'moved:1'\n\toption command 'sleep 1000'\n\toption adopt '1'\n"
    )
    box.reconciler.read_config()
    for _ in range(2):
        box.reconciler.run_pass(deep=frozenset())
    web = box.reconciler.board.resource("container:web")
    assert web is not None
    reasons = {c["type"]: c["reason"] for c in web["conditions"] if c["status"]}
    assert (reasons["ImageReady"], reasons["UpdateAvailable"]) == ("Present", "NewerImage")
    box.clean()
    box.client.images.remove("moved:1", force=True)
