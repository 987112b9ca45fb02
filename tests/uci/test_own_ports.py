# SPDX-License-Identifier: GPL-2.0-or-later
"""A container's port where something else listens is warned of, with one that is free; the link to its web page."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.files.config import load, load_given
from agent.files.options import RuntimeOptions
from agent.files.uci_store import TextUciStore
from agent.model.addresses import Machine
from agent.model.issues import GivenConfig, Issue
from agent.router.addresses import has_address
from agent.router.listening import of_containers, of_processes, of_services
from agent.runtime.status_writer import webui_of

PORTS = {
    "2381:80": True,
    "192.168.1.1:2381:80": True,
    "2380-2390:80": True,
    "192.168.2.1:2381:80": False,
    "2381:80/udp": False,
    "2382:80": False,
    "2381": False,
}


@pytest.mark.parametrize("port", PORTS)
def test_a_port_of_the_agent_is_warned_of(tmp_path: Path, port: str) -> None:
    (tmp_path / "containers").write_text(
        "config agent 'agent'\n\tlist listen '192.168.1.1:2381'\n"
        f"config container 'web'\n\toption image 'a'\n\tlist port '{port}'\n"
    )
    options = RuntimeOptions(config_dir=tmp_path, override_dir=tmp_path / "o", state_dir=tmp_path / "s")
    found = [issue for issue in load(options).issues if "the agent itself listens" in issue.text()]
    assert bool(found) is PORTS[port]
    assert all(issue.severity == "warning" for issue in found)


SERVICES = {
    "uhttpd": """
config uhttpd 'main'
	list listen_http '0.0.0.0:80'
	list listen_http '[::]:80'
	list listen_https '443'
""",
    "dropbear": "config dropbear\n\toption Port '2222'\nconfig dropbear 'off'\n\toption enable '0'\n",
    "dhcp": "config dnsmasq\nconfig dhcp 'lan'\n\toption start '100'\nconfig dhcp 'wan'\n\toption ignore '1'\n",
}
FOREIGN = {
    "Names": ["/adguard"],
    "Labels": {},
    "Ports": [
        {"IP": "192.168.1.1", "PublicPort": 3000, "PrivatePort": 3000, "Type": "tcp"},
        {"PrivatePort": 53},
    ],
}
OURS = FOREIGN | {"Labels": {"ucidockd.section": "x"}, "Ports": [{"PublicPort": 3001, "Type": "tcp"}]}
CLASHES = {
    "80:80": ("uhttpd is set to listen on 0.0.0.0:80 (`uhttpd.main.listen_http`)", "8080 is free"),
    "443:443/tcp": ("uhttpd is set to listen on port 443", "8443 is free"),
    "[::1]:80:80": ("uhttpd is set to listen on [::]:80", "8080 is free"),
    "2222:22": ("dropbear is set to listen on port 2222 (`dropbear.@dropbear[0].Port`)", "2223 is free"),
    "192.168.1.1:53:53/udp": (
        "dnsmasq is set to listen on port 53 (`dhcp.@dnsmasq[0].port`)",
        "8053 is free",
    ),
    "67:67/udp": ("dnsmasq is set to listen on port 67 (`dhcp.lan.start`)", "8067 is free"),
    "3000:80": ("the container adguard, which is not managed, publishes 192.168.1.1:3000", "3001 is free"),
    "192.168.2.1:3000:80": None,
    "3001:80": None,  # another of ours: two sections are a mistake, and this one is about to go
    "80:80/udp": None,
    "22:22": None,
    "80": None,
}


def warned(folder: Path, port: str) -> list[Issue]:
    for name, text in SERVICES.items():
        (folder / name).write_text(text)
    (folder / "containers").write_text(f"config container 'web'\n\toption image 'a'\n\tlist port '{port}'\n")
    options = RuntimeOptions(config_dir=folder, override_dir=folder / "o", state_dir=folder / "s")
    store = TextUciStore(config_dir=folder, override_dir=folder / "o")
    others = (*of_services(store), *of_containers([FOREIGN, OURS]))
    return list(load_given(options, GivenConfig(), Machine(listeners=others)).issues)


@pytest.mark.parametrize("port", CLASHES)
def test_a_port_of_a_service_or_a_foreign_container_is_warned_of(tmp_path: Path, port: str) -> None:
    issues, expected = warned(tmp_path, port), CLASHES[port]
    assert bool(issues) is (expected is not None)
    for issue in issues:
        assert (issue.severity, issue.option, issue.index, issue.line) == ("warning", "port", 0, 3)
        assert expected is not None and expected[0] in issue.message and issue.expected.endswith(expected[1])


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_any_process_that_listens_is_found(family: socket.AddressFamily, kind: socket.SocketKind) -> None:
    address = "127.0.0.1" if family is socket.AF_INET else "::1"
    with socket.socket(family, kind) as one, socket.socket(family, kind) as silent:
        one.bind((address, 0))
        silent.bind((address, 0))
        if kind is socket.SOCK_STREAM:
            one.listen()
        port, protocol = one.getsockname()[1], "tcp" if kind is socket.SOCK_STREAM else "udp"
        found = [
            each for each in of_processes(Path("/proc")) if (each.port, each.protocol) == (port, protocol)
        ]
        assert [each.ip for each in found] == [address]
        assert found[0].said.startswith("the process ") and str(port) in found[0].said
        ports = {each.port for each in of_processes(Path("/proc"))}
        assert (silent.getsockname()[1] in ports) is (kind is socket.SOCK_DGRAM)


def test_offline_the_machine_that_checks_does_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        (tmp_path / "containers").write_text(
            f"config container 'web'\n\toption image 'a'\n\tlist port '{taken.getsockname()[1]}:80'\n"
        )
        words = ["check", "--strict", f"--config-dir={tmp_path}", f"--override-dir={tmp_path}/none"]
        assert main(words) == 1
        assert "the process " in capsys.readouterr().out
        assert main([*words, "--offline"]) == 0


LINKS = {
    "https://[host]:[port:8443]/admin?x=1#y": "https://[host]:9443/admin?x=1#y",
    "http://[host]:[port:90]/": "http://[host]:[port:90]/",  # the engine chooses
    "http://nas.lan/": "http://nas.lan/",
    "http://[fd00::1]:[port:8443]/": "http://[fd00::1]:9443/",
}
NO_LINKS = ("javascript:alert(1)", "data:text/html,x", "//evil/", "https://a b/", "http://me:secret@nas/", "http://[hos]/",
            "http://[port:0]/", "http://[port:x]/", "http://x/\"><script>", "HTTPS://x/")  # fmt: skip


@pytest.mark.parametrize("link", [*LINKS, *NO_LINKS])
def test_the_link_to_a_web_page(tmp_path: Path, link: str) -> None:
    section = "config container 'web'\n\toption image 'a'\n\tlist port '9443:8443'\n\tlist port '90'\n"
    (tmp_path / "containers").write_text(f"{section}\toption webui '{link}'\n")
    options = RuntimeOptions(config_dir=tmp_path, override_dir=tmp_path / "o", state_dir=tmp_path / "s")
    loaded = load(options)
    assert loaded.desired is not None
    if link in NO_LINKS:
        assert [(issue.severity, issue.option, issue.line) for issue in loaded.issues] == [
            ("error", "webui", 5)
        ]
        assert not loaded.desired.containers
        return
    assert not loaded.issues
    assert webui_of(loaded.desired.containers[0]) == LINKS[link]
    bare = (tmp_path / "containers").write_text(section)
    assert bare and load(options).desired.spec_hashes == loaded.desired.spec_hashes  # type: ignore[union-attr]


def test_a_link_to_a_port_that_is_not_published_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "containers").write_text(
        "config container 'web'\n\toption image 'a'\n\tlist port '80:80'\n\toption webui 'http://[host]:[port:81]/'\n"
    )
    options = RuntimeOptions(config_dir=tmp_path, override_dir=tmp_path / "o", state_dir=tmp_path / "s")
    assert [(i.severity, i.option) for i in load(options).issues] == [("warning", "webui")]


@pytest.mark.parametrize(
    ("lines", "port"),
    [
        ("option log_driver 'fluentd'", 24224),
        ("option log_driver 'fluentd'\n\tlist log_opt 'fluentd-address=127.0.0.1:9'", 9),
        ("option log_driver 'fluentd'\n\tlist log_opt 'fluentd-async=true'", 0),
        ("option log_driver 'fluentd'\n\tlist log_opt 'fluentd-address=192.168.1.5:24224'", 0),
        ("option log_driver 'syslog'", 0),
        ("option log_driver 'syslog'\n\tlist log_opt 'syslog-address=tcp://localhost:601'", 601),
        ("option log_driver 'syslog'\n\tlist log_opt 'syslog-address=udp://localhost:514'", 0),
        ("option log_driver 'gelf'\n\tlist log_opt 'gelf-address=tcp://127.0.0.1:12201'", 12201),
        ("option log_driver 'json-file'", 0),
        ("option enabled '0'\n\toption log_driver 'fluentd'", 0),
    ],
)
@pytest.mark.parametrize("by_section", [True, False], ids=["its-own", "a-section-listens"])
def test_a_log_driver_without_a_listener_is_warned_of(
    tmp_path: Path, lines: str, port: int, *, by_section: bool
) -> None:
    text = f"config container 'web'\n\toption image 'a'\n\t{lines}\n"
    if not by_section:
        collector = f"\toption log_driver 'json-file'\n\tlist port '{port or 1}:1'\n"
        text += f"config container 'collector'\n\toption image 'a'\n{collector}"
    (tmp_path / "containers").write_text(text)
    options = RuntimeOptions(config_dir=tmp_path, override_dir=tmp_path / "o", state_dir=tmp_path / "s")
    listeners = tuple(of_containers([FOREIGN]))
    found = [
        i.text()
        for i in load_given(options, GivenConfig(), Machine(listeners=listeners)).issues
        if "nothing listens" in i.text()
    ]
    assert [f"nothing listens on port {port}," in text for text in found] == [True] * bool(
        port and by_section
    )
    # which programs listen is not known offline
    assert not [i for i in load(options).issues if "nothing listens" in i.text()]


@pytest.mark.parametrize(("driver", "is_warned"), [("", False), ("fluentd", False), ("gelf", True)])
def test_dockerds_log_options_count_for_a_section_that_names_dockerds_driver(
    tmp_path: Path, driver: str, *, is_warned: bool
) -> None:
    lines = f"\toption log_driver '{driver}'\n" if driver else ""
    lines += "\tlist log_opt 'gelf-address=tcp://127.0.0.1:9'\n" * is_warned
    (tmp_path / "containers").write_text(f"config container 'web'\n\toption image 'a'\n{lines}")
    (tmp_path / "dockerd").write_text(
        "config globals 'globals'\n\toption log_driver 'fluentd'\n"
        "\tlist log_opts 'fluentd-address=192.168.1.5:24224'\n"
    )
    options = RuntimeOptions(config_dir=tmp_path, override_dir=tmp_path / "o", state_dir=tmp_path / "s")
    found = load_given(options, GivenConfig(), Machine(listeners=tuple(of_containers([FOREIGN])))).issues
    assert any("nothing listens" in issue.text() for issue in found) is is_warned


@pytest.mark.parametrize(
    ("lines", "at"),
    [
        ("list port '192.0.2.9:80:80'", 4),
        ("list port '[2001:db8::9]:80:80'", 4),
        ("list port '127.0.0.1:80:80'", None),
        ("list port '80:80'", None),
        ("list port '192.0.2.9:80:80'\n\toption enabled '0'", None),
    ],
)
def test_an_address_that_the_router_does_not_have_is_warned_of(
    tmp_path: Path, lines: str, at: int | None
) -> None:
    (tmp_path / "containers").write_text(f"config container 'web'\n\toption image 'a'\n\n\t{lines}\n")
    options = RuntimeOptions(config_dir=tmp_path, override_dir=tmp_path / "o", state_dir=tmp_path / "s")
    machine = Machine(lacks=lambda address: not has_address(address))
    found = load_given(options, GivenConfig(), machine).issues
    assert [(i.severity, i.option, i.line, "does not have the address" in i.message) for i in found] == (
        [("warning", "port", at, True)] if at else []
    )


def test_dockerds_address_for_ports_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "containers").write_text("")
    (tmp_path / "dockerd").write_text("config globals 'globals'\n\toption ip '192.0.2.9'\n")
    options = RuntimeOptions(config_dir=tmp_path, override_dir=tmp_path / "o", state_dir=tmp_path / "s")
    (issue,) = load_given(options, GivenConfig(), Machine(lacks=lambda _: True)).issues
    assert issue.text().startswith("dockerd.globals.ip: this router does not have the address 192.0.2.9 now")
    assert load_given(options, GivenConfig()).issues == ()
