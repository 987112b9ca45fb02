# SPDX-License-Identifier: GPL-2.0-or-later
"""The LuCI app as files: rights, menu, package, texts; and its logic's own tests, run by node."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.api.access.access import Access
from agent.api.app import make_rules
from agent.api.engine_calls import BUS_CALLS, ENGINE_CALLS
from agent.api.jobs.jobs import Jobs
from agent.api.rules import Need
from agent.api.ubus.agent import (
    AdoptionMethods,
    AgentMethods,
    DaemonMethods,
    DataMethods,
    JobMethods,
    UpdateMethods,
    log_methods,
)
from agent.api.ubus.docker import DockerObjects, Ttyd
from agent.api.ubus.streams import Streams
from agent.engine.stream import DockerStream
from agent.model.dockerd.table import TABLE
from agent.schema.validate import DAEMON_KINDS
from tests.support.controller import QuietAgent
from tests.support.policies import read_schema

PROJECT = Path(__file__).parents[2]
LUCI = PROJECT / "luci"
RESOURCES = LUCI / "htdocs/luci-static/resources"
OWN = [
    path
    for path in sorted(LUCI.rglob("*"))
    if path.suffix in {".js", ".uc"} and path.parent.name not in {"xterm", "i18n"}
]
VIEWS = sorted((RESOURCES / "view/ucidockd").glob("*.js"))
ACL: dict[str, Any] = json.loads((LUCI / "root/usr/share/rpcd/acl.d/luci-app-ucidockd.json").read_text())
MENU: dict[str, Any] = json.loads((LUCI / "root/usr/share/luci/menu.d/luci-app-ucidockd.json").read_text())
RIGHTS = ACL["luci-app-ucidockd"]
READING = {
    "backup_list",
    "status", "plan", "describe", "diff", "load", "reach", "job_list", "job_status",
    "stream_open", "stream_resume", "stream_ack", "stream_read", "stream_close",
    "df", "events", "info", "ping", "version", "changes", "inspect", "list", "logs", "stats", "top",
    "history", "updates", "getMountPoints",
}  # fmt: skip

WITH_SECRETS = {("ucidockd", "history")}  # it only reads, but what only writers may


def methods_of_agent() -> set[str]:
    """Of the object `ucidockd`; nothing is called."""
    nothing: Any = None
    groups = (
        AgentMethods(nothing, nothing),
        JobMethods(nothing, Jobs(nothing)),
        AdoptionMethods(nothing),
        UpdateMethods(nothing),
        DaemonMethods(nothing),
        DataMethods(nothing),
    )
    streams = Streams.methods(Streams.__new__(Streams))
    return (
        {name for group in groups for name in group.methods()}
        | set(streams)
        | set(log_methods(nothing, nothing))
    )


def methods_of_engine() -> dict[str, set[str]]:
    """Of the objects `docker*`; nothing is called."""
    nothing: Any = None
    return {
        owned.name: set(owned.methods)
        for owned in DockerObjects(nothing, nothing, nothing, ttyd=Ttyd(())).objects()
    }


def granted(level: str) -> dict[str, set[str]]:
    return {name: set(methods) for name, methods in RIGHTS[level]["ubus"].items()}


def test_the_access_list_names_every_method_and_nothing_by_pattern() -> None:
    assert set(ACL) == {"luci-app-ucidockd"}
    assert "*" not in json.dumps(ACL)
    assert set(RIGHTS["read"]) == {"ubus"}, (
        "the configuration holds passwords, and files are nobody's business"
    )
    assert set(RIGHTS["write"]) == {"ubus", "uci"}
    assert RIGHTS["write"]["uci"] == {
        name: ["read", "write"] for name in ("containers", "dockerd", "firewall")
    }


def test_every_method_of_the_access_list_is_published() -> None:
    published = methods_of_engine() | {
        "ucidockd": methods_of_agent(),
        "luci": {"getMountPoints"},
        "system": {"info"},
    }
    for level in ("read", "write"):
        assert {
            name: methods - published[name]
            for name, methods in granted(level).items()
            if methods - published[name]
        } == {}


def test_reading_and_changing_are_apart() -> None:
    assert {m for methods in granted("read").values() for m in methods} <= READING
    changing = {(name, m) for name, methods in granted("write").items() for m in methods}
    reading = {(name, m) for name, methods in granted("read").items() for m in methods}
    assert {m for _, m in changing - WITH_SECRETS} & READING <= {
        "load"
    }  # of images it changes, of containers it shows
    assert changing & reading == set()


def needed() -> dict[tuple[str, str], Need]:
    """The right that each method on ubus needs: that of its row in the table of engine calls, or of its route."""
    nothing: Any = None
    found = {(call.object, call.method): call.need for call in ENGINE_CALLS if call.args is not None}
    found["docker.container", "ttyd_start"] = Need.WRITE
    access = Access(nothing, nothing)
    for rule in make_rules(QuietAgent(), DockerStream("unix:///none"), access):
        if rule.grant.object == "ucidockd":
            found.setdefault((rule.grant.object, rule.grant.method), rule.grant.need)
    return found


def test_the_access_list_and_the_routes_agree_row_by_row() -> None:
    rights = needed()
    for (name, method), need in sorted(rights.items()):
        level = "read" if need is Need.READ else "write"
        assert method in granted(level).get(name, set()), f"{name} {method}: the routes say {level}"
    written = {
        (name, method) for name, methods in granted("write").items() for method in methods
    } - rights.keys()
    assert written == {("ucidockd", "stream_input"), ("ucidockd", "stream_resize")}
    # what has no route: streams of one's own, LuCI's own list of file systems, and procd's load and memory
    rest = {(name, m) for name, methods in granted("read").items() for m in methods} - rights.keys()
    assert rest == {
        ("luci", "getMountPoints"), ("system", "info"),
        *(("ucidockd", f"stream_{what}") for what in ("open", "resume", "ack", "read", "close")),
    }  # fmt: skip


def test_every_call_of_the_pages_is_granted() -> None:
    text = (RESOURCES / "ucidockd/calls.js").read_text()
    both = {
        name: granted("read").get(name, set()) | granted("write").get(name, set())
        for name in (*BUS_CALLS, "ucidockd")
    }
    agent = re.search(r"const AGENT = \{(.*?)\n\};", text, re.DOTALL)
    docker = re.search(r"const DOCKER = \{(.*?)\n\};", text, re.DOTALL)
    assert agent and docker
    methods = re.sub(r"\{[^{}]*\}", "{}", agent[1])  # without the names of their arguments
    assert set(re.findall(r"(\w+): [\[{]", methods)) - both["ucidockd"] == set()
    for name, table in re.findall(r"'(docker[.\w]*)': \{(.*?)\}", docker[1], re.DOTALL):
        assert set(re.findall(r"(\w+): \[", table)) - both[name] == set(), name


def test_every_entry_of_the_menu_leads_somewhere() -> None:
    bridge = (LUCI / "ucode/controller/ucidockd.uc").read_text()
    views = set()
    for path, node in MENU.items():
        action = node["action"]
        assert node["depends"] == {"acl": ["luci-app-ucidockd"]}, path
        if action["type"] == "view":
            views.add(action["path"])
            assert (RESOURCES / f"view/{action['path']}.js").is_file(), path
        elif action["type"] == "function":
            assert action["module"] == "luci.controller.ucidockd"
            assert node["auth"]["login"] is True, path
            assert re.search(rf"^\t{action['function']}(:|,)", bridge, re.MULTILINE), path
        else:
            assert action == {"type": "firstchild"}
    assert views == {f"ucidockd/{path.stem}" for path in VIEWS}


def test_forms_say_of_each_option_what_dockerd_needs_to_follow_it() -> None:
    of_table = {(row.section, row.uci) for row in TABLE}
    said = {
        (kind, name): schema["x-effect"]
        for kind in DAEMON_KINDS
        for name, schema in read_schema(kind)["properties"].items()
        if (kind, name) in of_table
    }
    assert said == {(row.section, row.uci): "stop" if row.stops else row.effect for row in TABLE}


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_own_files_are_marked_small_and_make_no_markup(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("// SPDX-License-Identifier: GPL-2.0-or-later\n// ")
    assert len(text.splitlines()) <= (250 if path in VIEWS else 330)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", text)
    assert not re.search(r"^ +\S", text, re.MULTILINE), "tabs indent"


def test_the_terminal_is_the_one_that_the_package_file_names() -> None:
    installed = PROJECT / "node_modules/@xterm/xterm"
    if not installed.is_dir():
        pytest.skip("node_modules is not there: `npm ci`")
    folder = RESOURCES / "ucidockd/xterm"
    wanted = json.loads((PROJECT / "package.json").read_text())["dependencies"]["@xterm/xterm"]
    assert json.loads((installed / "package.json").read_text())["version"] == wanted
    made = subprocess.run(
        ["node", "luci/xterm.mjs", "node_modules/@xterm"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (folder / "xterm.js").read_text() == made.stdout, "run `make xterm`"
    assert (folder / "LICENSE").read_text() == (installed / "LICENSE").read_text()


def later() -> set[str]:
    """The modules that are loaded when they are used."""
    return {name for path in OWN for name in re.findall(r"L\.require\('ucidockd\.(\w+)'\)", path.read_text())}


def test_a_packed_page_takes_two_files_and_leaves_out_no_module(tmp_path: Path) -> None:
    shutil.copytree(LUCI / "htdocs", tmp_path / "htdocs")
    subprocess.run([sys.executable, LUCI / "bundle.py", tmp_path / "htdocs"], check=True)
    resources = tmp_path / "htdocs/luci-static/resources"
    packed = {name: (resources / f"ucidockd/{name}.js").read_text() for name in ("app", "forms")}
    made = [
        name
        for text in packed.values()
        for name in re.findall(r"^made\['ucidockd\.(\w+)'\] = ", text, re.MULTILINE)
    ]
    assert len(made) == len(set(made))
    # a module that comes later with a bundle has no file of its own
    assert {path.stem for path in (resources / "ucidockd").glob("*.js")} == {*packed, *later() - set(made)}
    assert set(made) | later() == {path.stem for path in (RESOURCES / "ucidockd").glob("*.js")}
    schemas = json.loads(
        re.findall(r"^made\['ucidockd.schemas'\].packed = (.*);$", packed["forms"], re.MULTILINE)[0]
    )
    assert schemas["container"] == json.loads((PROJECT / "schemas/container.schema.json").read_text())
    for path in VIEWS:
        text = (resources / "view/ucidockd" / path.name).read_text()
        needs = json.loads(re.findall(r"^const BUNDLES = (.*);$", text, re.MULTILINE)[0])
        assert set(needs) <= {"ucidockd.app", "ucidockd.forms"}
        assert ("ucidockd.forms" in needs) is (path.stem in {"add", "networks", "settings", "volumes"}), path


_RULES = """
INCLUDE_DIR:=$(TOPDIR)/include
PKG_BUILD_DIR:=$(TOPDIR)/build
CP:=cp -fpR
INSTALL_DIR:=install -d -m0755
INSTALL_DATA:=install -m0644
"""
_PACKAGE = """
define BuildPackage
.PHONY: install-$(1)
install-$(1):
	$$(call Build/Prepare)
	$$(call Build/Compile)
	$$(call Package/$(1)/install,$$(DESTINATION))
endef
"""


def test_the_package_puts_every_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "rules.mk").write_text(_RULES)
    (tmp_path / "include/package.mk").write_text(_PACKAGE)
    words = ["make", "-s", f"TOPDIR={tmp_path}", f"DESTINATION={tmp_path}/root", "install-luci-app-ucidockd"]
    subprocess.run(words, cwd=PROJECT / "package/luci-app-ucidockd", check=True)
    found = {
        str(path.relative_to(tmp_path / "root")) for path in (tmp_path / "root").rglob("*") if path.is_file()
    }
    # the pages' modules in two bundles, beside those that are loaded later
    kept = {"app", "forms", *later() - {"form"}}
    www = {
        f"www/{path.relative_to(LUCI / 'htdocs')}"
        for path in (LUCI / "htdocs").rglob("*")
        if (path.is_file() and path.parent.name != "ucidockd") or path in VIEWS
    } | {f"www/luci-static/resources/ucidockd/{name}.js" for name in kept}
    rest = {
        "usr/share/luci/menu.d/luci-app-ucidockd.json",
        "usr/share/rpcd/acl.d/luci-app-ucidockd.json",
        "usr/share/ucode/luci/controller/ucidockd.uc",
    }
    assert found == www | rest


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_logic_of_the_pages_passes_its_own_tests() -> None:
    files = sorted(Path(__file__).parent.glob("*.test.mjs"))
    run = subprocess.run(["node", "--test", *files], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:]
