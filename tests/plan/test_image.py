# SPDX-License-Identifier: GPL-2.0-or-later
"""Which image a container is made of: a moved tag replaces nothing by itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from agent.model import entry_text
from agent.model.observed import Record
from agent.model.quantities import parse_age
from agent.model.updates import Available
from agent.plan import operations as ops
from agent.plan.container.image import digest_of, failure_of
from tests.support.plans import World, a_world

OLD, NEW = "sha256:nginx:1", "sha256:fresh"
DIGEST = "nginx@sha256:" + "d" * 64
DAY_S = 86400.0
NIGHT = datetime(2024, 5, 1, 3, 0).timestamp()  # in the default window, by any time zone
NOON = datetime(2024, 5, 1, 12, 0).timestamp()


def web(*lines: str) -> str:
    return "config container 'web'\n\toption image 'nginx:1'\n" + "".join(f"\t{line}\n" for line in lines)


def moved(*lines: str, before: str = "", **context: Any) -> World:
    """The tag names another image than the one that the container was made of."""

    def move(world: World) -> None:
        world.record("web", image_id=OLD, digest=DIGEST)
        world.context.update(image_ids={"nginx:1": NEW, OLD: OLD}, **context)

    return a_world(before or web(*lines), web(*lines), move)


def told(world: World, kind: str = "UpdateAvailable") -> str:
    found = [f.message for f in world.plan().findings if f.type == kind and f.status]
    return found[0] if found else ""


def replacing(world: World) -> ops.ReplaceContainer | None:
    found = [o for o in world.plan().operations if isinstance(o, ops.ReplaceContainer)]
    assert len(world.plan().operations) == len(found)
    return found[0] if found else None


@pytest.mark.parametrize("lines", [(), ("option pull 'always'",), ("option update 'off'",)])
def test_a_tag_that_moves_replaces_nothing(lines: tuple[str, ...]) -> None:
    assert moved(*lines).plan().operations == ()


def test_it_is_told_with_what_runs_and_what_is_there() -> None:
    message = told(moved())
    assert "nginx:1 is now fresh" in message
    assert "runs nginx:1 (sha256:dddddddddddd)" in message
    assert "`ucidockd update web`" in message
    assert told(moved("option update 'off'")) == ""


def test_an_edit_for_another_reason_keeps_the_image() -> None:
    found = replacing(moved("option user 'nobody'", before=web()))
    assert found is not None
    assert (found.keep, found.fresh, found.only_image) == (OLD, False, False)


@pytest.mark.parametrize("edit", [("option platform 'linux/arm64'",), ("option image 'nginx:2'",)])
def test_an_edit_of_the_image_takes_what_the_reference_names(edit: tuple[str, ...]) -> None:
    found = replacing(moved(*edit, before=web()))
    assert found is not None
    assert found.keep == ""


def test_one_that_was_removed_is_made_of_its_image_again() -> None:
    world = moved()
    world.lose("web")
    create = world.plan().operations[0]
    assert isinstance(create, ops.CreateContainer)
    assert (create.keep, create.fresh) == (OLD, False)


def test_an_update_that_was_asked_for_asks_the_registry() -> None:
    world = moved()
    world.record("web", asked="update")
    found = replacing(world)
    assert found is not None
    assert (found.keep, found.fresh, found.only_image) == ("", True, True)
    never = moved("option pull 'never'")
    never.record("web", asked="update")
    found = replacing(never)
    assert found is not None
    assert not found.fresh


@pytest.mark.parametrize(
    ("now", "age", "offered_at", "lines", "expected"),
    [
        (NIGHT, 4 * DAY_S, None, (), ""),
        (NIGHT, 2 * DAY_S, None, (), "1 d at the earliest"),
        (NIGHT, 2 * DAY_S, NIGHT - 4 * DAY_S, (), ""),
        (NOON, 4 * DAY_S, None, (), "between 02:00-05:00"),
        (NOON, 4 * DAY_S, None, ("option update_window '11:30-12:30'",), ""),
        (NIGHT, 4 * DAY_S, None, ("option update_window '23:30-02:00'",), "between 23:30-02:00"),
        (NOON, 0, None, ("option update_window '11:30-12:30'", "option update_age '0'"), ""),
        (1000.0, 4 * DAY_S, None, (), "once the clock is set"),
    ],
)
def test_auto_waits_for_its_age_and_its_window(
    now: float, age: float, offered_at: float | None, lines: tuple[str, ...], expected: str
) -> None:
    new = DIGEST.replace("d", "e")
    world = moved("option update 'auto'", *lines, now=now, image_digests={NEW: (new,)})
    world.record("web", newer=new, newer_at=now - age)
    if offered_at is not None:
        available = Available(reference="nginx:1", digest=new[6:], running=(), first_seen=offered_at)
        world.context["offered"] = {"container:web": available}
    assert (replacing(world) is not None) is (not expected)
    assert expected in told(world)


def test_what_a_registry_has_is_told_and_taken_by_auto() -> None:
    def offer(world: World) -> None:
        world.record("web", image_id=OLD)
        available = Available(reference="nginx:1", digest="sha256:" + "e" * 64, running=(), first_seen=0.0)
        world.context.update(image_ids={"nginx:1": OLD}, now=NIGHT, offered={"container:web": available})

    assert "sha256:eeeeeeeeeeee in its registry" in told(a_world(web(), web(), offer))
    world = a_world(web("option update 'auto'"), web("option update 'auto'"), offer)
    found = replacing(world)
    assert found is not None
    assert found.fresh
    world.record("web", failed_digest="nginx@sha256:" + "e" * 64)
    assert replacing(world) is None, "a digest that was rolled back is not tried again"


NO_FAILURE = Record(kind="container", section="web", nonce="n", name="web")


def failing(world: World) -> World:
    container = world.desired.containers[0]
    world.record("web", **failure_of(container, NEW, NO_FAILURE), failed_why="it exited with 1")
    return world


@pytest.mark.parametrize("lines", [(), ("option update 'auto'", "option update_age '0'")])
def test_an_update_that_was_rolled_back_stays_so_and_says_why(lines: tuple[str, ...]) -> None:
    world = failing(moved(*lines, now=NIGHT))
    assert world.plan().operations == ()
    (finding,) = [f for f in world.plan().findings if f.type == "Degraded"]
    assert (finding.reason, finding.message) == ("RolledBack", "it exited with 1")
    assert "`ucidockd update web` tries again" in str(
        [f.message for f in world.plan().findings if f.type == "Synced"]
    )
    world.record("web", asked="update")
    assert replacing(world) is not None


def test_a_rollback_pins_until_the_section_changes() -> None:
    world = moved("option update 'auto'", "option update_age '0'", now=NIGHT)
    world.record("web", asked="rollback", previous=("sha256:older=nginx@sha256:aa",))
    found = replacing(world)
    assert found is not None
    assert (found.keep, found.digest, found.pin) == ("sha256:older", "nginx@sha256:aa", True)
    world.record("web", asked="", pinned=True)
    assert replacing(world) is None
    assert "stays on it" in told(world, "Pinned")


BUSY: dict[str, Callable[[World], None]] = {
    "back-off": lambda w: w.context.update(backoff={"container:web": "it failed"}),
    "held": lambda w: w.context.update(held={"container:web": "stop"}),
    "under way": lambda w: w.context.update(busy=frozenset({"container:web"})),
}


@pytest.mark.parametrize("state", BUSY)
def test_what_was_asked_for_waits(state: str) -> None:
    world = moved()
    world.record("web", asked="update")
    BUSY[state](world)
    assert world.plan().operations == ()


def test_digests_are_those_of_the_repository() -> None:
    digests = {"i": ("ghcr.io/a/b@sha256:1", "nginx@sha256:2")}
    assert digest_of("i", "docker.io/library/nginx:1", digests) == "nginx@sha256:2"
    assert digest_of("i", "ghcr.io/a/b", digests) == "ghcr.io/a/b@sha256:1"
    assert digest_of("i", "ghcr.io/a/c", digests) == ""


@pytest.mark.parametrize("text", ["0", "30m", "12h", "3d", "1w", "90m"])
def test_ages_are_written_as_they_are_read(text: str) -> None:
    assert entry_text.age(parse_age(text)) == text
