# SPDX-License-Identifier: GPL-2.0-or-later
"""UCI sections to desired resources, and every mistake on the way."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from agent.errors import PathError
from agent.model.resources import ContainerPolicy, ContainerSpec, Desired, Endpoint, Mount, Pull
from agent.schema.validate import KINDS, properties
from agent.uci.decode import DecodeResult, decode, decode_agent, decode_auth, decode_backup, decode_stack
from agent.uci.decode_container import decode_container
from agent.uci.decode_network import decode_network, decode_notify, decode_volume
from agent.uci.syntax import Option, Package, Section
from tests.support.asked_reader import AskedReader

Value = str | tuple[str, ...]


def a_section(kind: str, section: str, /, **values: Value) -> Section:
    options = tuple(
        Option(
            name=name, value=value, lines=tuple(range(10, 11 if isinstance(value, str) else 10 + len(value)))
        )
        for name, value in values.items()
    )
    return Section(type=kind, name=section, anonymous=False, options=options, line=9)


def nameless(section: Section) -> Section:
    return replace(section, anonymous=True)


def a_container(section: str, **values: Value) -> Section:
    return a_section("container", section, **{"image": "alpine", **values})


def decoded(
    *sections: Section, dockerd: tuple[Section, ...] = (), files: dict[str, str] | None = None
) -> DecodeResult:
    packages = {
        "containers": Package(name="containers", sections=sections),
        "dockerd": Package(name="dockerd", sections=dockerd),
    }
    paths = {"containers": "/etc/config/containers"}
    return decode(packages, paths=paths, read_file=None if files is None else files.__getitem__)


def texts(result: DecodeResult) -> list[str]:
    return [issue.text() for issue in result.issues]


EXAMPLES = {
    kind: {name: schema["examples"][0] for name, schema in properties(kind).items()} for kind in KINDS
}


def full_section(kind: str) -> Section:
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in EXAMPLES[kind].items()}
    values |= {"external": "0"} if kind == "network" else {}  # it goes with no other option
    return a_section(kind, "all", **values)


@pytest.mark.parametrize("kind", KINDS)
def test_every_schema_property_is_read(kind: str) -> None:
    reader = AskedReader(full_section(kind), package="containers")
    match kind:
        case "container":
            decode_container(reader, read_file=lambda _: "")
        case "network":
            decode_network(reader)
        case "volume":
            decode_volume(reader)
        case "stack":
            decode_stack(reader, read_file=lambda _: "")
        case "backup":
            decode_backup(reader)
        case "notify":
            decode_notify(reader)
        case "auth":
            decode_auth(reader)
        case "notify":
            decode_notify(reader)
        case _:
            decode_agent(reader)
    assert set(properties(kind)) - reader.used == set()


def test_every_field_of_a_container_comes_from_some_option() -> None:
    reader = AskedReader(full_section("container"), package="containers")
    container = decode_container(reader, read_file=lambda path: "{}" if path.endswith(".json") else "")
    unset = [f.name for f in fields(ContainerSpec) if getattr(container.spec, f.name) in (None, ())]
    assert unset == []
    assert container.policy.wait_for
    assert container.policy.depends_on
    assert {f.name for f in fields(ContainerPolicy)} <= reader.used | {
        "gate_s",
        "grace_s",
        "update_age_s",
        "hold_limit_s",
    } | {
        "pre_stop_timeout_s",
        "post_start_timeout_s",
    }


def test_an_issue_names_place_mistake_expectation_and_line() -> None:
    result = decoded(a_container("web", port=("80", "80:x")))
    (text,) = texts(result)
    assert text.startswith("containers.web.port[1]: '80:x' is not a port, expected [ip:]host")
    assert text.endswith("(/etc/config/containers:11)")
    assert result.desired == Desired(
        broken=frozenset({"container:web"}),
        claimed=frozenset({"container:web"}),
        images={"alpine": "web"},
    )


def test_a_broken_section_leaves_the_others_alone() -> None:
    result = decoded(a_container("aa", memory="x", cpus="y"), a_container("bb"))
    assert len(result.issues) == 2
    assert [c.section for c in result.desired.containers] == ["bb"]


def test_the_order_of_sections_does_not_matter() -> None:
    one, two = a_container("aa"), a_container("bb", label=("x=1", "a=2"))
    assert decoded(one, two).desired == decoded(two, one).desired


def test_names_of_networks_and_volumes_become_docker_names() -> None:
    result = decoded(
        a_section("network", "lan", name="my-lan", subnet="10.1.0.0/24", ip_range="10.1.0.128/25"),
        a_section("volume", "data", name="my-data"),
        a_container("web", network=("lan,alias=w",), ip="10.1.0.5", volume=("data:/d", "other:/o")),
    )
    assert texts(result) == []
    spec = result.desired.containers[0].spec
    assert spec.endpoints == (Endpoint(network="my-lan", aliases=("w",), ip="10.1.0.5"),)
    assert spec.mounts == (Mount(source="my-data", target="/d"), Mount(source="other", target="/o"))


def test_a_network_has_a_fixed_bridge_name_and_pools_by_containment() -> None:
    result = decoded(
        a_section(
            "network",
            "a_long_section_name",
            subnet=("10.1.0.0/24", "fd00::/64"),
            gateway=("fd00::1", "10.1.0.1"),
            ip_range="10.1.0.128/25",
        )
    )
    spec = result.desired.networks[0].spec
    assert dict(spec.options) == {"com.docker.network.bridge.name": "br-a_long_secti"}
    assert [(p.gateway, p.ip_range) for p in spec.pools] == [("10.1.0.1", "10.1.0.128/25"), ("fd00::1", "")]
    assert spec.ipv6


def test_later_environment_entries_win_over_earlier_ones_and_files() -> None:
    result = decoded(
        a_container("web", env_file="/e", env=("A=2", "A=3", "B", "C")), files={"/e": "# x\nA=1\nB=file\n"}
    )
    assert result.desired.containers[0].spec.env == (("A", "3"), ("B", "file"))
    assert [i.severity for i in result.issues] == ["warning"]


def test_a_command_option_is_split_and_a_list_is_not() -> None:
    result = decoded(a_container("aa", command="sh -c 'a b'"), a_container("bb", command=("a b", "c")))
    assert [c.spec.command for c in result.desired.containers] == [("sh", "-c", "a b"), ("a b", "c")]


def test_logins_of_containers_go_before_those_of_dockerd() -> None:
    def auth(server: str) -> Section:
        return nameless(a_section("auth", "x", serveraddress=server, token="t"))

    result = decoded(auth("a"), dockerd=(a_section("globals", "globals"), auth("b")))
    assert ([a.server for a in result.desired.auths], texts(result)) == (["a", "b"], [])


def test_a_name_in_both_packages_is_an_error_on_both() -> None:
    result = decoded(a_container("web"), dockerd=(a_container("web"),))
    assert [(i.package, i.severity) for i in result.issues] == [("containers", "error"), ("dockerd", "error")]
    assert result.desired.broken == {"container:web"}


@pytest.mark.parametrize(
    ("kind", "section"), [("container", "a"), ("container", "_db"), ("volume", "v"), ("network", "_lan")]
)
def test_a_section_whose_name_docker_does_not_take_wants_option_name(kind: str, section: str) -> None:
    image = {"image": "alpine"} if kind == "container" else {}
    (text,) = texts(decoded(a_section(kind, section, **image)))
    assert f"containers.{section}: Docker does not accept its name" in text
    assert "or `option name`" in text
    assert decoded(a_section(kind, section, name="good-one", **image)).issues == ()


def test_an_anonymous_container_wants_a_name() -> None:
    result = decoded(nameless(a_container("cfg1")), nameless(a_container("cfg2", name="web")))
    assert [c.section for c in result.desired.containers] == ["web"]
    assert "lasting identity" in texts(result)[0]


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"memory": "5m"}, "memory: is too small, expected at least 6m"),
        ({"memory": "64m", "memory_swap": "32m"}, "memory_swap: is less than `memory`"),
        ({"memory_swap": "32m"}, "memory_swap: is set without"),
        ({"network": "nowhere"}, "network[0]: unknown network 'nowhere'"),
        ({"network": "lan,ip=10.9.0.1"}, "network[0]: 10.9.0.1 is not in any subnet"),
        ({"network": "lan", "ip": "10.9.0.1"}, "ip: 10.9.0.1 is not in any subnet"),
        ({"network": "lan", "network_mode": "host"}, "network_mode: cannot be combined with"),
        ({"network": ("lan", "host")}, "network: host cannot be combined with another"),
        ({"network_mode": "service:nobody"}, "network_mode: unknown container section"),
        ({"network_mode": "container:db", "port": "80:80"}, "port: cannot be combined with"),
        ({"depends_on": "nobody"}, "depends_on[0]: unknown container section"),
        ({"depends_on": "web"}, "depends_on: depends on itself"),
        ({"port": "5432:80"}, "port[0]: host ports taken by other containers: 5432/tcp (db)"),
        ({"name": "db"}, "name: the Docker name 'db' is also that of section db"),
        ({"volume": ("a1:/d", "/b:/d")}, "volume[1]: /d is mounted twice"),
        ({"ip": "10.1.0.2"}, "ip: the container has no network"),
        ({"label": "ucidockd.owner=me"}, "label[0]: labels that begin"),
        ({"env_file": "/odd"}, "env_file[0]: /odd is not a regular file"),
        ({"image": ""}, "image: is empty"),
    ],
)
def test_a_container_mistake_is_an_error(values: dict[str, Value], hint: str) -> None:
    def missing(path: str) -> str:
        raise PathError(f"{path} is not a regular file")

    lan = a_section("network", "lan", subnet="10.1.0.0/24")
    package = Package(
        name="containers", sections=(lan, a_container("db", port="5432:5432"), a_container("web", **values))
    )
    result = decode({"containers": package}, paths={}, read_file=missing)
    assert any(
        i.text().startswith(f"containers.web.{hint}") and i.severity == "error" for i in result.issues
    ), texts(result)
    assert "container:web" in result.desired.broken


def test_a_cycle_is_an_error_on_all_its_members_only() -> None:
    result = decoded(
        a_container("aa", depends_on="bb"),
        a_container("bb", depends_on="aa"),
        a_container("cc", depends_on="aa"),
    )
    assert result.desired.broken == {"container:aa", "container:bb"}


def test_a_container_on_a_broken_network_stays_desired() -> None:
    result = decoded(a_section("network", "lan", subnet="x"), a_container("web", network="lan,ip=10.0.0.1"))
    assert result.desired.broken == {"network:lan"}
    assert [c.section for c in result.desired.containers] == ["web"]


def test_ports_of_disabled_containers_or_other_addresses_do_not_clash() -> None:
    result = decoded(
        a_container("aa", port="10.0.0.1:80:80"),
        a_container("bb", port="10.0.0.2:80:80"),
        a_container("cc", port="80:80", enabled="0"),
        a_container("dd", port="80:80/udp"),
    )
    assert texts(result) == []


def test_host_mode_with_a_port_is_only_a_warning() -> None:
    result = decoded(a_container("aa", network_mode="host", port="80:80"))
    assert [i.severity for i in result.issues] == ["warning"]
    assert result.desired.containers


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"log_opt": "max-sizes=1m"}, "did you mean max-size?"),
        ({"log_opt": "gelf-address=udp://x:1"}, ""),  # dockerd's own driver may be gelf
        ({"log_opt": "gelf-address=udp://x:1", "log_driver": "local"}, "it is one of gelf"),
        ({"log_opt": "max-size=ten"}, "is not a size"),
        ({"log_opt": "max-size=ten", "log_driver": "grafana/loki:3"}, ""),
        ({"log_opt": "x=y", "log_driver": "none"}, ""),
        ({"log_driver": "splunk"}, "splunk needs splunk-url and splunk-token"),
        ({"log_opt": "gelf-address=udp://x:1", "log_driver": "gelf"}, ""),
    ],
)
def test_a_log_option_that_the_engine_would_refuse_is_warned_of(options: dict[str, str], wrong: str) -> None:
    result = decoded(a_container("aa", **options))
    assert result.desired.containers
    assert [issue.severity for issue in result.issues] == ["warning"] * bool(wrong)
    assert all(wrong in issue.text() for issue in result.issues)


SPLUNK = {"log_driver": "splunk", "log_opts": ("splunk-url=https://x", "splunk-token=x")}
ROTATED = ("max-size=1m", "max-file=2")
UNBLOCKED = ("mode=non-blocking",)


@pytest.mark.parametrize(
    ("dockerd", "options", "wrong"),
    [
        (SPLUNK, {"log_driver": "splunk"}, ""),
        (SPLUNK, {"log_opt": "tag=x"}, ""),
        (SPLUNK, {"log_driver": "gelf"}, "gelf needs gelf-address"),
        ({"log_opts": UNBLOCKED}, {"log_opt": "max-buffer-size=4m"}, ""),
        ({"log_opts": ROTATED}, {"log_opt": "compress=true"}, ""),
        (
            {"log_opts": (*ROTATED, "compress=true")},
            {"log_driver": "json-file", "log_opt": "max-file=1"},
            "compress needs",
        ),
        (
            {"log_driver": "local", "log_opts": UNBLOCKED},
            {"log_driver": "json-file", "log_opt": "max-buffer-size=4m"},
            "works only with",
        ),
        ({"log_driver": "local"}, {"log_opt": "labels=a"}, "is not an option of the log driver local"),
    ],
)
def test_dockerds_log_options_complete_those_of_a_section(
    dockerd: dict[str, Value], options: dict[str, str], wrong: str
) -> None:
    result = decoded(a_container("aa", **options), dockerd=(a_section("globals", "globals", **dockerd),))
    assert result.desired.containers
    assert [issue.severity for issue in result.issues] == ["warning"] * bool(wrong)
    assert all(wrong in issue.text() for issue in result.issues)


@pytest.mark.parametrize("option", ["network_mode", "ipc", "pid"])
@pytest.mark.parametrize("other", ["service:vpn", "container:my-vpn"])
def test_sharing_a_namespace_implies_a_dependency(option: str, other: str) -> None:
    result = decoded(a_container("vpn", name="my-vpn"), a_container("web", **{option: other}))
    web = result.desired.containers[1]
    assert getattr(web.spec, option) == "container:my-vpn"
    assert [d.section for d in web.policy.depends_on] == ["vpn"]


@pytest.mark.parametrize("option", ["network_mode", "ipc", "pid"])
def test_a_namespace_that_goes_in_circles_is_said_at_its_option(option: str) -> None:
    circle = (a_container("aa", **{option: "service:bb"}), a_container("bb", **{option: "service:aa"}))
    found = decoded(*circle)
    assert [i.option for i in found.issues if i.severity == "error"] == [option, option]


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (
            {"subnet": "10.1.0.5/24"},
            "subnet[0]: '10.1.0.5/24' is an address inside a subnet, expected 10.1.0.0/24",
        ),
        ({"gateway": "10.1.0.1"}, "gateway[0]: 10.1.0.1 is not in any subnet"),
        ({"parent": "eth0"}, "parent: the driver bridge has no parent"),
        ({"driver": "macvlan", "mode": "l2"}, "mode: 'l2' is not a mode of macvlan"),
        ({"subnet": "fd00::/64", "ipv6": "0"}, "ipv6: IPv6 is off"),
        ({"subnet": ("10.0.0.0/8", "10.1.0.0/24")}, "subnet[1]: 10.1.0.0/24 overlaps"),
    ],
)
def test_a_network_mistake_is_an_error(values: dict[str, Value], hint: str) -> None:
    result = decoded(a_section("network", "lan", **values))
    assert texts(result)[0].startswith(f"containers.lan.{hint}")
    assert result.desired.broken == {"network:lan"}


def test_macvlan_settings_become_options() -> None:
    result = decoded(a_section("network", "lan", driver="macvlan", parent="br-lan", mode="bridge"))
    assert dict(result.desired.networks[0].spec.options) == {"parent": "br-lan", "macvlan_mode": "bridge"}


def test_no_secret_reaches_an_issue() -> None:
    secret = "hunter2"
    result = decoded(
        a_container(
            "web",
            env=(f"bad name={secret}", f"={secret}"),
            command=f"x '{secret}",
            log_opt=f"={secret}",
            enviroment=f"A={secret}",
        ),
        a_section("auth", "hub", password=secret, serveraddress="docker.io"),
    )
    assert len(result.issues) >= 6
    assert secret not in repr(result)


def test_unknown_sections_are_warnings_and_daemon_sections_are_not_ours() -> None:
    result = decoded(a_section("contaner", "x"), dockerd=(a_section("firewall", "firewall"),))
    assert [(i.package, i.severity) for i in result.issues] == [("containers", "warning")]


def test_defaults_hold_where_nothing_is_set() -> None:
    result = decoded(a_container("web"), a_section("agent", "agent", workers="2", enabled="off"))
    web = result.desired.containers[0]
    assert (web.spec, web.policy) == (ContainerSpec(image="alpine"), ContainerPolicy(pull=Pull.MISSING))
    assert (result.desired.agent.workers, result.desired.agent.enabled) == (2, False)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"docker_host": "tcp://192.168.1.2:2375"}, ["connection to this engine is not encrypted"]),
        ({"docker_host": "tcp://192.168.1.2:2376", "docker_cert_path": "/etc/nas"}, []),
        ({"docker_host": "tcp://127.0.0.1:2375"}, []),
        ({"docker_cert_path": "/etc/nas"}, ["a unix socket does not use TLS"]),
        ({"docker_host": "tcp://nas:99999"}, ["Port out of range"]),
        (
            {"docker_host": "tcp://nas:2376", "docker_cert_path": "nas"},
            ["absolute path", "connection to this engine"],
        ),
    ],
)
def test_the_way_to_an_engine_is_looked_at(values: dict[str, Value], said: list[str]) -> None:
    result = decoded(a_section("agent", "agent", **values))
    found = texts(result)
    assert len(found) == len(said), found
    assert all(any(part in text for text in found) for part in said), found


def of_a_fixed_address(address: str, **network: Value) -> list[str]:
    option = {"ip6" if ":" in address else "ip": address}
    lan = a_section("network", "lan", **{"subnet": ("10.1.0.0/24", "fd01::/64"), "ipv6": "1", **network})
    result = decoded(lan, a_container("web", network=("lan",), **option))
    assert all(issue.severity == "warning" for issue in result.issues)
    return texts(result)


def test_a_fixed_address_that_the_pool_hands_out_is_warned_of() -> None:
    (text,) = of_a_fixed_address("10.1.0.5")
    assert "another container may get it first" in text
    assert "`list ip_range` in that network that leaves it out, such as 10.1.0.128/25" in text
    assert "such as fd01::8000:0:0:0/65" in of_a_fixed_address("fd01::5")[0]
    assert of_a_fixed_address("10.1.0.200", ip_range="10.1.0.128/25") != []
    assert of_a_fixed_address("10.1.0.5", ip_range="10.1.0.128/25") == []


def test_a_fixed_address_that_the_network_keeps_for_itself_is_warned_of() -> None:
    (text,) = of_a_fixed_address("10.1.0.5", aux_address=("nas=10.1.0.5",), ip_range="10.1.0.128/25")
    assert "is the aux_address nas of network 'lan'" in text
    assert "the gateway" in of_a_fixed_address("10.1.0.5", gateway="10.1.0.5")[0]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("port", ("8080:80",)),
        ("network", ("lan,ip=10.0.0.5",)),
        ("network_mode", "host"),
        ("device", ("/dev/ttyUSB0",)),
        ("volume", ("/srv:/srv",)),
        ("volume", ("data:/data", "/srv:/srv:ro")),
    ],
)
def test_a_handover_is_refused_where_both_cannot_run(option: str, value: str | tuple[str, ...]) -> None:
    found = texts(decoded(a_container("web", strategy="handover", **{option: value})))
    (text,) = [text for text in found if "web.strategy" in text]
    assert f"cannot both have what `{option}` says, expected `swap`" in text


def test_a_handover_is_taken_where_both_can_run() -> None:
    free = {"port": ("80",), "volume": ("/srv:/srv:ro",)}
    assert texts(decoded(a_container("web", strategy="handover", **free))) == []


@pytest.mark.parametrize(
    ("option", "value", "wrong"),
    [
        ("shm_size", "64", "64 means 64 bytes"),
        ("memory_reservation", "512", "512 means 512 bytes"),
        ("log_opt", ("max-size=10",), "10 means 10 bytes"),
        ("shm_size", "67108864", ""),
        ("shm_size", "64m", ""),
        ("log_opt", ("max-size=10m",), ""),
    ],
)
def test_a_size_of_a_few_bytes_is_warned_of(option: str, value: Value, wrong: str) -> None:
    result = decoded(a_container("web", **{option: value}))
    assert [i.message for i in result.issues] == ([wrong] if wrong else [])
    assert all((i.severity, i.expected[-1]) == ("warning", "m") for i in result.issues)
