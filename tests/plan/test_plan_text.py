# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of plans: what UCI said before is there, what it says now is desired, and somebody may have meddled.

What each scenario's plan reads is in tests/data/plans.txt, in the words of `ucidockd plan`; lines with `!` are
conditions. After a change of the words: `python -m tests.plan.test_plan_text` prints the file anew, to be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent.plan.container.image import attempt_of
from agent.plan.draft import Missing
from tests.support.plans import NOW, World, a_world, text_of


@dataclass(frozen=True)
class Row:
    """`before` is on the engine and recorded, `after` is declared, `change` is what else happened."""

    before: str
    after: str
    change: Callable[[World], None] = lambda world: None


DATA_FILE = Path(__file__).parents[1] / "data" / "plans.txt"

WEB = "config container 'web'\n\toption image 'nginx'\n"
LAN = "config network 'lan'\n\tlist subnet '10.1.0.0/24'\n"
DATA = "config volume 'data'\n"
DB = "config container 'db'\n\toption image 'postgres'\n\tlist volume 'data:/var/lib'\n\tlist network 'lan'\n"
APP = "config container 'app'\n\toption image 'app'\n\tlist depends_on 'db'\n\tlist network 'lan'\n"


def web(*lines: str) -> str:
    return WEB + "".join(f"\t{line}\n" for line in lines)


JOB = WEB + "\toption restart 'no'\n"


def done(world: World) -> None:
    exited(world)
    world.context["completed"] = frozenset({"WEB"})


def exited(world: World, code: int = 0) -> None:
    status = f"Exited ({code}) 1 second ago"
    world.see("web", state="exited", exit_code=code, last_exit_code=code, status_text=status)


def failed(world: World) -> str:
    return attempt_of(world.desired.containers[0], "sha256:caddy")


def plugged(world: World) -> None:
    world.record("web", plugged=("usb:0403:6001=/dev/ttyUSB0",))
    moved = replace(world.desired.containers[0], plugged=(("usb:0403:6001", "/dev/ttyUSB1"),))
    world.desired = replace(world.desired, containers=(moved,))


ROWS: dict[str, Row] = {
    "everything new, in the order of its needs": Row("", APP + DB + DATA + LAN),
    "nothing changed": Row(LAN + DATA + DB + APP, APP + DB + DATA + LAN),
    "equal edits": Row(
        web("option memory '64m'", "list port '80:80'"),
        web("option memory '65536k'", "list port '80:80/tcp'"),
    ),
    "a limit": Row(web("option memory '64m'"), web("option memory '128m'")),
    "several in place": Row(
        web("option memory '64m'", "option restart 'no'"),
        web("option memory '32m'", "option restart 'always'", "option pids_limit '5'"),
    ),
    "a limit that is taken away": Row(web("option memory '64m'"), WEB),
    "a restart policy that is taken away": Row(web("option restart 'always'"), WEB),
    "another name": Row(WEB, web("option name 'site'")),
    "another name and a limit": Row(
        web("option memory '64m'"), web("option name 'site'", "option memory '32m'")
    ),
    "an alias": Row(LAN + web("list network 'lan'"), LAN + web("list network 'lan,alias=www'")),
    "another image": Row(WEB, WEB.replace("nginx", "caddy")),
    "an image that was pulled again": Row(
        WEB, WEB, lambda w: w.context.update(image_ids={"nginx": "sha256:fresh"})
    ),
    "an image that is not there": Row("", WEB, lambda w: w.context.update(image_ids={"nginx": ""})),
    "a variable, whose value is not shown": Row(
        web("list env 'PW=S3CRET'", "list env 'B=1'"), web("list env 'PW=S4CRET'", "list env 'B=1'")
    ),
    "a secret on the command line and in a label": Row(
        web("option command 'run --token=S3CRET'", "list label 'api_key=S3CRET'"),
        web("option command 'run --token=S4CRET'", "list label 'api_key=S4CRET'", "list label 'a=b'"),
    ),
    "a recreate takes the limit along": Row(
        web("option memory '64m'"), web("option memory '32m'", "option user 'nobody'")
    ),
    "policies only": Row(WEB, web("option pull 'always'", "option gate '9'", "list wait_for 'clock'")),
    "a policy that has to be written down": Row(WEB, web("option grace '5'")),
    "a subnet, with its members": Row(
        LAN + web("list network 'lan'"), LAN.replace("10.1", "10.2") + web("list network 'lan'")
    ),
    "a volume cannot change": Row(DATA, DATA + "\tlist opt 'type=nfs'\n"),
    "disabled": Row(WEB, web("option enabled '0'")),
    "disabled and not there": Row("", web("option enabled '0'")),
    "stopped": Row(WEB, web("option state 'stopped'")),
    "declared stopped": Row("", web("option state 'stopped'")),
    "completed": Row(JOB, JOB, done),
    "ended with 0, not of its own": Row(JOB, JOB, exited),
    "a service that ended with 0": Row(WEB, WEB, exited),
    "a job that is edited does it again": Row(JOB, JOB + "\toption memory '64m'\n", done),
    "failed": Row(WEB, WEB, lambda w: exited(w, 1)),
    "one that is always to run has ended": Row(
        web("option restart 'always'"), web("option restart 'always'"), exited
    ),
    "a crash loop is a condition": Row(WEB, WEB, lambda w: w.see("web", state="restarting")),
    "paused": Row(WEB, WEB, lambda w: w.see("web", state="paused")),
    "removed behind our back": Row(WEB, WEB, lambda w: w.lose("web")),
    "renamed behind our back": Row(WEB, WEB, lambda w: w.see("web", name="other")),
    "a network removed behind our back": Row(
        LAN + web("list network 'lan'"), LAN + web("list network 'lan'"), lambda w: w.lose("lan")
    ),
    "drift is repaired": Row(
        web("option memory '64m'"), web("option memory '64m'"), lambda w: w.inspect("web", Memory=1)
    ),
    "drift is reported": Row(
        web("option memory '64m'", "option on_drift 'report'"),
        web("option memory '64m'", "option on_drift 'report'"),
        lambda w: w.inspect("web", Memory=1),
    ),
    "a container that is not ours": Row(
        "", web("option command 'mine'"), lambda w: w.foreign("web", "theirs")
    ),
    "a container that is to be adopted": Row(
        "", web("option adopt '1'"), lambda w: w.foreign("web", "theirs")
    ),
    "a section that is gone": Row(WEB, ""),
    "within the grace period": Row(WEB, "", lambda w: w.record("web", removed_at=NOW - 60)),
    "after the grace period": Row(
        LAN + WEB,
        "",
        lambda w: (w.record("web", removed_at=NOW - 121), w.record("lan", removed_at=NOW - 121)),
    ),
    "a rollback of LuCI may bring it back": Row(
        WEB,
        "",
        lambda w: (
            w.record("web", removed_at=NOW - 999),
            w.context.update(deletions_held="LuCI may still roll the change back"),
        ),
    ),
    "a section that is back": Row(WEB, WEB, lambda w: (w.record("web", removed_at=NOW - 60), exited(w, 137))),
    "section and object were removed": Row(WEB, "", lambda w: w.lose("web")),
    "a volume's section is gone": Row(DATA, "", lambda w: w.record("data", removed_at=NOW - 999)),
    "a volume that may be removed": Row(
        DATA, "config agent 'agent'\n\toption remove '1'\n", lambda w: w.record("data", removed_at=NOW - 999)
    ),
    "held after a manual stop": Row(
        WEB, WEB, lambda w: (exited(w), w.context.update(held={"container:web": "stop"}))
    ),
    "in back-off": Row("", WEB, lambda w: w.context.update(backoff={"container:web": "no such image"})),
    "made by a newer version": Row(
        WEB, WEB.replace("nginx", "caddy"), lambda w: w.record("web", spec_hash="v9:abc")
    ),
    "rolled back before": Row(
        WEB, WEB.replace("nginx", "caddy"), lambda w: w.record("web", failed_hash=failed(w))
    ),
    "a device is missing": Row(
        WEB,
        WEB,
        lambda w: w.context.update(
            waiting={"container:web": Missing(reason="device /dev/x is not there", stop=True)},
            lost={"container:web": Missing(reason="device /dev/x is not there", stop=True)},
        ),
    ),
    "a new device is missing": Row(
        WEB,
        web("list device '/dev/x'"),
        lambda w: w.context.update(
            waiting={"container:web": Missing(reason="device /dev/x is not there", stop=True)}
        ),
    ),
    "while a change waits, what ended is started": Row(
        WEB,
        web("list device '/dev/x'"),
        lambda w: (
            exited(w, 137),
            w.context.update(
                waiting={"container:web": Missing(reason="device /dev/x is not there", stop=True)}
            ),
        ),
    ),
    "while a change waits, its name is taken by a container that is not ours": Row(
        WEB,
        web("list device '/dev/x'"),
        lambda w: (
            w.see("web", name="other"),
            w.foreign("web", "theirs"),
            w.context.update(waiting={"container:web": Missing(reason="device /dev/x is not there")}),
        ),
    ),
    "its name is taken by a container that is not ours": Row(
        WEB, web("option command 'new'"), lambda w: (w.see("web", name="other"), w.foreign("web", "theirs"))
    ),
    "a mount is missing": Row(
        WEB,
        WEB,
        lambda w: w.context.update(
            waiting={"container:web": Missing(reason="bind source /mnt/x is not there")}
        ),
    ),
    "who needs a container that waits, waits": Row(
        "",
        LAN + DATA + DB + APP,
        lambda w: w.context.update(waiting={"container:db": Missing(reason="nothing is mounted on /mnt")}),
    ),
    "healthy is waited for": Row(LAN + DATA + DB, LAN + DATA + DB + APP.replace("'db'", "'db:healthy'")),
    "completed is waited for": Row(LAN + DATA + DB, LAN + DATA + DB + APP.replace("'db'", "'db:completed'")),
    "an earlier plan is at it": Row(
        "", LAN + web("list network 'lan'"), lambda w: w.context.update(busy=frozenset({"network:lan"}))
    ),
    "a namespace that was replaced": Row(
        WEB + "config container 'peer'\n\toption image 'x'\n\toption network_mode 'service:web'\n",
        WEB.replace("nginx", "caddy")
        + "config container 'peer'\n\toption image 'x'\n\toption network_mode 'service:web'\n",
    ),
    "a namespace that was restarted": Row(
        WEB + "config container 'peer'\n\toption image 'x'\n\toption network_mode 'service:web'\n",
        WEB + "config container 'peer'\n\toption image 'x'\n\toption network_mode 'service:web'\n",
        lambda w: w.context.update(left_behind=frozenset({"PEER"})),
    ),
    "a namespace that is about to be": Row(
        WEB + "config container 'peer'\n\toption image 'x'\n\toption network_mode 'service:web'\n",
        WEB + "config container 'peer'\n\toption image 'x'\n\toption network_mode 'service:web'\n",
        lambda w: exited(w, 137),
    ),
    "two exchange their names": Row(
        web("option name 'a1'") + "config container 'peer'\n\toption image 'x'\n\toption name 'b1'\n",
        web("option name 'b1'") + "config container 'peer'\n\toption image 'x'\n\toption name 'a1'\n",
    ),
    "a stick that moved": Row(
        web("list device 'usb:0403:6001:/dev/z'"), web("list device 'usb:0403:6001:/dev/z'"), plugged
    ),
}


def golden() -> dict[str, str]:
    blocks = DATA_FILE.read_text().split("# ")[1:]
    return {name: text.strip() for name, _, text in (block.partition("\n") for block in blocks)}


def plan_text(row: Row) -> str:
    return text_of(a_world(row.before, row.after, row.change).plan())


@pytest.mark.parametrize("name", ROWS)
def test_the_plan_reads(name: str) -> None:
    assert plan_text(ROWS[name]) == golden().get(name)


def test_no_golden_text_is_left_over() -> None:
    assert list(golden()) == list(ROWS)


def test_no_plan_shows_a_secret() -> None:
    assert not re.search("S[34]CRET", DATA_FILE.read_text())


if __name__ == "__main__":
    print("\n".join(f"# {name}\n{plan_text(row)}\n" for name, row in ROWS.items()), end="")
