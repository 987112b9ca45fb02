# SPDX-License-Identifier: GPL-2.0-or-later
"""/etc/config/dockerd -> daemon settings, and every mistake in it."""

from __future__ import annotations

import pytest

from agent.model.dockerd.settings import DaemonSettings
from agent.model.dockerd.successors import SUCCESSORS
from agent.model.dockerd.table import APART, TABLE
from agent.schema.validate import DAEMON_KINDS, properties
from agent.uci.decode import DecodeResult, decode
from agent.uci.decode_daemon import decode_daemon
from agent.uci.syntax import parse
from tests.support.asked_reader import AskedReader


def decoded(text: str) -> DecodeResult:
    return decode({"dockerd": parse(text, package="dockerd")}, paths={"dockerd": "/etc/config/dockerd"})


def settings(globals_: str, rest: str = "") -> DaemonSettings:
    result = decoded(f"config globals 'globals'\n{globals_}\n{rest}")
    assert [issue.text() for issue in result.issues] == []
    assert result.desired.daemon is not None
    return result.desired.daemon


def mistakes(globals_: str, rest: str = "") -> list[str]:
    result = decoded(f"config globals 'globals'\n{globals_}\n{rest}")
    return [issue.text() for issue in result.issues]


def test_the_stock_configuration_of_openwrt_is_read() -> None:
    stock = """
config globals 'globals'
	option data_root '/opt/docker/'
	option log_level 'warn'
	option iptables '1'
#	list hosts 'unix:///var/run/docker.sock'
#	option bip '172.18.0.1/24'
#	list registry_mirrors 'https://<my-docker-mirror-host>'

config firewall 'firewall'
	option device 'docker0'
	list blocked_interfaces 'wan'
	option extra_iptables_args '--match conntrack ! --ctstate RELATED,ESTABLISHED'

config proxies 'proxies'
"""
    result = decoded(stock)
    assert result.issues == ()
    daemon = result.desired.daemon
    assert daemon is not None
    assert daemon.values == {"data-root": "/opt/docker", "log-level": "warn", "iptables": True}
    assert daemon.firewall[0].blocked_interfaces == ("wan",)


def test_without_a_section_about_dockerd_there_are_no_settings() -> None:
    assert decoded("config container 'web'\n\toption image 'a'\n").desired.daemon is None


def test_every_option_of_globals_and_proxies_is_in_the_table_or_apart() -> None:
    for section in ("globals", "proxies"):
        rows = {row.uci for row in TABLE if row.section == section}
        known = rows | (APART if section == "globals" else frozenset())
        assert known == set(properties(section))
    assert len({row.key for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize("kind", DAEMON_KINDS)
def test_every_schema_property_is_read(kind: str) -> None:
    lines = []
    for name, schema in properties(kind).items():
        example = schema["examples"][0]
        values = example if isinstance(example, list) else [example]
        word = "list" if isinstance(example, list) else "option"
        lines += [f"\t{word} {name} '{value}'" for value in values]
    (section,) = parse(f"config {kind} '{kind}'\n" + "\n".join(lines), package="dockerd").sections
    reader = AskedReader(section, package="dockerd")
    decode_daemon([reader])
    assert set(properties(kind)) - reader.used == set()


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("list dns '1.1.1.1'\nlist dns 'FD00::1'", "dns", ["1.1.1.1", "fd00::1"]),
        ("option dns '1.1.1.1'", "dns", ["1.1.1.1"]),
        (
            "list log_opts 'max-size=1m'\nlist log_opts 'max-file=3'",
            "log-opts",
            {"max-file": "3", "max-size": "1m"},
        ),
        (
            "list default_address_pools '10.10.0.0/16,24'",
            "default-address-pools",
            [{"base": "10.10.0.0/16", "size": 24}],
        ),
        (
            "list default_ulimits 'nofile=64:128'",
            "default-ulimits",
            {"nofile": {"Name": "nofile", "Soft": 64, "Hard": 128}},
        ),
        ("option default_shm_size '128m'", "default-shm-size", "134217728"),
        ("list registry_mirrors 'https://m.example.org'", "registry-mirrors", ["https://m.example.org/"]),
        ("option live_restore 'yes'", "live-restore", True),
        ("option mtu '1492'", "mtu", 1492),
        ("list labels 'a=b'\nlist labels 'a=b'", "labels", ["a=b"]),
    ],
)
def test_an_option_becomes_what_daemon_json_holds(line: str, key: str, value: object) -> None:
    assert settings(line).values[key] == value


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("unix:///run/a.sock", "unix:///run/a.sock"),
        ("tcp://0.0.0.0:2375", "tcp://0.0.0.0:2375"),
        ("tcp://localhost:2375/", "tcp://127.0.0.1:2375"),
        ("tcp://[FD00::0:1]:2376", "tcp://[fd00::1]:2376"),
        ("tcp://[::]:2376", "tcp://[::]:2376"),
    ],
)
def test_a_host_is_brought_into_one_form(text: str, form: str) -> None:
    assert [host.text for host in settings(f"list hosts '{text}'").hosts] == [form]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp6://[::1]:2375", "expected tcp://[address]:port"),
        ("inet6://[::1]:2375", "expected tcp://[address]:port"),
        ("http://127.0.0.1:2375", "expected tcp://address:port"),
        ("fd://", "expected unix:///var/run/docker.sock"),
        ("tcp://[]:2375", "expected tcp://[::]:port"),
        ("tcp://::1:2375", "expected unix:///path, tcp://address:port or tcp://[IPv6 address]:port"),
        ("tcp://[127.0.0.1]:2375", "expected an IPv6 address"),
        ("tcp://127.0.0.1:99999", "expected a whole number of at least 1, at most 65535"),
        ("tcp://router.lan:2375", "expected an IPv4 address"),
        ("tcp://[fe80::1%eth0]:2375", "expected an address that is not link-local"),
        ("unix:///var/run/", "expected unix:///var/run/docker.sock"),
        ("unix:///" + "x" * 120, "expected 107 bytes at most"),
        ("bogus", "expected unix:///path"),
    ],
)
def test_a_wrong_host_is_an_error_that_names_the_right_form(text: str, expected: str) -> None:
    (mistake,) = mistakes(f"list hosts '{text}'")
    assert mistake.startswith("dockerd.globals.hosts[0]: ")
    assert expected in mistake


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("option bip '300.1.1.1/24'", "globals.bip: '300.1.1.1/24' is not an address with a prefix"),
        ("option bip '172.18.0.0/24'", "is the subnet, not an address in it, expected 172.18.0.1/24"),
        ("option bip '172.18.0.1/31'", "leaves no address for a container"),
        (
            "option bip '172.18.0.1/24'\noption fixed_cidr '172.19.0.0/25'",
            "is not inside the bridge's subnet",
        ),
        ("option fixed_cidr 'x'", "globals.fixed_cidr: 'x' is not valid here"),
        ("option fixed_cidr_v6 '172.18.0.0/25'", "is not IPv6"),
        (
            "option log_driver '-x'",
            "globals.log_driver: '-x' is not a log driver, expected a driver such as json-file",
        ),
        ("option storage_driver 'nosuch'", "expected one of overlay2"),
        ("option log_level 'loud'", "expected one of debug, info, warn, error, fatal"),
        ("option data_root '/'", "expected an absolute path such as /opt/docker"),
        ("option data_root '/..'", "is not a separate directory"),
        ("list dns '1.2.3'", "globals.dns[0]: '1.2.3' is not an IP address"),
        ("list registry_mirrors 'ftp://m'", "expected http(s)://host[:port]"),
        ("list registry_mirrors 'https://m/v2?a=b'", "the mirror has more than a host, a port and a path"),
        ("list insecure_registries '192.168.1.2/x'", "expected address/bits"),
        ("list insecure_registries 'r:99999'", "99999 is out of range"),
        ("list default_address_pools '10.10.0.0/16'", "expected subnet,prefix"),
        ("list default_address_pools '10.10.0.0/16,8'", "8 is out of range"),
        ("list default_ulimits 'nofile=9:1'", "is above the hard one"),
        ("list labels 'a=b'\nlist labels 'a=c'", "globals.labels[1]: label 'a' has two values"),
        ("list labels 'a'", "globals.labels[0]: 'a' is not valid here, expected NAME=value"),
        ("list default_address_pools 'fd00::/48,64'", "there is no pool of IPv4 addresses"),
        ("list insecure_registries '-r.lan'", "is not a registry"),
        ("list registry_mirrors 'https://a\\\\b'", "is not a host"),
        ("list log_opts 'max-size=ten'", "is not a size"),
        ("list log_opts 'max-file=0'", "0 is out of range"),
        ("list log_opts 'mode=async'", "is not a mode"),
        ("list log_opts 'compress=yes'", "compress needs logs that are rotated"),
        (
            "list log_opts 'compress=true'\nlist log_opts 'max-size=1m'",
            "compress needs logs that are rotated",
        ),
        (
            "list log_opts 'max-sizes=1m'",
            "max-sizes is not an option of the log driver json-file (did you mean max-size?)",
        ),
        ("list log_opts 'gelf-address=udp://x:1'", "it is one of gelf"),
        ("list log_opts 'max-buffer-size=1m'", "works only with mode=non-blocking"),
        ("list features '{x}=true'", "is not the name of a feature"),
        ("option mtu '20'", "globals.mtu: 20 is out of range"),
        ("option default_shm_size '0'", "must be greater than 0"),
        ("option log_driver 'none'\nlist log_opts 'a=b'", "the driver none has no options"),
        ("list hosts 'tcp://[::]:1'\nlist hosts 'tcp://127.0.0.1:1'", "cannot both be opened"),
        ("option memroy '1'", "warning"),
    ],
)
def test_a_mistake_is_reported_with_its_place(line: str, wrong: str) -> None:
    result = decoded(f"config globals 'globals'\n{line}\n")
    (issue,) = result.issues
    assert wrong in issue.text() or wrong == issue.severity
    assert (result.desired.daemon_mistakes == ()) is (issue.severity == "warning")


# what the stock init script hands on, dockerd's parsers or Go take, and how it is written properly
TAKEN = [
    ("list hosts 'unix://var/run/docker.sock'", "hosts", "unix:///var/run/docker.sock"),
    ("list hosts 'unix://'", "hosts", "unix:///var/run/docker.sock"),
    ("list hosts '127.0.0.1:2375'", "hosts", "tcp://127.0.0.1:2375"),
    ("list hosts 'tcp://:2376'", "hosts", "tcp://127.0.0.1:2376"),
    ("list hosts 'tcp://'", "hosts", "tcp://127.0.0.1:2375"),
    ("list hosts 'tcp://0.0.0.0'", "hosts", "tcp://0.0.0.0:2375"),
    ("list hosts 'tcp://[::1]'", "hosts", "tcp://[::1]:2375"),
    (
        "option hosts 'unix:///run/a.sock tcp://127.0.0.1:1'",
        "hosts",
        ["unix:///run/a.sock", "tcp://127.0.0.1:1"],
    ),
    (
        "list hosts 'unix:///run/a.sock, tcp://127.0.0.1:1'",
        "hosts",
        ["unix:///run/a.sock", "tcp://127.0.0.1:1"],
    ),
    ("option dns '1.1.1.1 8.8.8.8'", "dns", ["1.1.1.1", "8.8.8.8"]),
    ("list dns '1.1.1.1,8.8.8.8'", "dns", ["1.1.1.1", "8.8.8.8"]),
    ("list registry_mirrors 'https://a,https://b/'", "registry-mirrors", ["https://a/", "https://b/"]),
    ("option registry_mirrors 'https://a https://b'", "registry-mirrors", ["https://a/", "https://b/"]),
    ("list registry_mirrors ' https://a '", "registry-mirrors", ["https://a/"]),
    ("list insecure_registries 'http://r.lan:5000'", "insecure-registries", ["r.lan:5000"]),
    ("list insecure_registries 'HTTPS://r.lan/'", "insecure-registries", ["r.lan"]),
    ("list insecure_registries '10.0.0.1/8'", "insecure-registries", ["10.0.0.0/8"]),
    ("option fixed_cidr '172.18.0.7/16'\noption bip '172.18.0.1/16'", "fixed-cidr", "172.18.0.0/16"),
    ("option fixed_cidr_v6 'fd00::1/64'", "fixed-cidr-v6", "fd00::/64"),
    (
        "list default_address_pools '10.1.2.3/16,24'",
        "default-address-pools",
        [{"base": "10.1.0.0/16", "size": 24}],
    ),
    (
        "list default_address_pools 'base=10.1.0.0/16,size=24'",
        "default-address-pools",
        [{"base": "10.1.0.0/16", "size": 24}],
    ),
    ("option max_concurrent_downloads '0'", "max-concurrent-downloads", 3),
    ("option max_concurrent_uploads '0'", "max-concurrent-uploads", 5),
    ("option shutdown_timeout '0'", "shutdown-timeout", 15),
    ("option shutdown_timeout '-1'", "shutdown-timeout", 3600),
    ("option mtu '0'", "mtu", None),
    ("option iptables 'True'", "iptables", True),
    ("option live_restore 'OFF'", "live-restore", False),
    ("option log_level 'WARN'", "log-level", "warn"),
    ("option log_level 'warning'", "log-level", "warn"),
    ("list log_level 'info'", "log-level", "info"),
    ("option data_root ' /mnt/sda1/docker '", "data-root", "/mnt/sda1/docker"),
    ("option data_root 'mnt/docker'", "data-root", "/mnt/docker"),
    ("option data_root '/opt/../mnt/docker'", "data-root", "/mnt/docker"),
    ("option shutdown_timeout '86400'", "shutdown-timeout", 3600),
    ("option log_driver 'JSON-FILE'", "log-driver", "json-file"),
    ("option log_driver 'json_file'", "log-driver", "json-file"),
    ("option log_driver 'loki'", "log-driver", "loki:latest"),
    ("list hosts '127.0.0.1'", "hosts", "tcp://127.0.0.1:2375"),
    ("list registry_mirrors 'https://a、https://b'", "registry-mirrors", ["https://a/", "https://b/"]),
    ("list registry_mirrors 'https://a|https://b'", "registry-mirrors", ["https://a/", "https://b/"]),
    (
        'list registry_mirrors \'["https://a", "https://b"]\'',
        "registry-mirrors",
        ["https://a/", "https://b/"],
    ),
    ("list registry_mirrors '\"https://a\"'", "registry-mirrors", ["https://a/"]),
    ("option data_root '\"/mnt/docker\"'", "data-root", "/mnt/docker"),
    ("list insecure_registries 'fd00::1'", "insecure-registries", ["fd00::1/128"]),
    ("option bip6 'fd00:17::/64'", "bip6", "fd00:17::1/64"),
    *(
        (
            f"list default_address_pools '{text}'",
            "default-address-pools",
            [{"base": "10.1.0.0/16", "size": 24}],
        )
        for text in (
            "10.1.0.0/16,/24",
            "base=10.1.0.0/16 , size=/24",
            "size=24,base=10.1.0.0/16",
            '{"base": "10.1.0.0/16", "size": 24}',
        )
    ),
    ("list log_opts 'max-size=10m,max-file=3'", "log-opts", {"max-size": "10m", "max-file": "3"}),
    (
        "list log_opts 'compress=yes,max-size=10m,max-file=3'",
        "log-opts",
        {"compress": "true", "max-size": "10m", "max-file": "3"},
    ),
    (
        'list log_opts \'{"max-size": "10m", "max-file": 3}\'',
        "log-opts",
        {"max-size": "10m", "max-file": "3"},
    ),
    (
        'option default_address_pools \'[{"base": "10.1.0.0/16", "size": 24}]\'',
        "default-address-pools",
        [{"base": "10.1.0.0/16", "size": 24}],
    ),
    ('option dns \'["1.1.1.1", "8.8.8.8"]\'', "dns", ["1.1.1.1", "8.8.8.8"]),
    ("option dns '1.1.1.1，8.8.8.8'", "dns", ["1.1.1.1", "8.8.8.8"]),
    ("list features '{\"buildkit\": false}'", "features", {"buildkit": False}),
    ("list log_opts 'max-size=1m'\nlist log_opts 'max-size=10m'", "log-opts", {"max-size": "10m"}),
    ("list log_opts 'labels=a,b max-size=10m'", "log-opts", {"labels": "a,b", "max-size": "10m"}),
    ("option storage_driver 'Overlay2'", "storage-driver", "overlay2"),
    ("list insecure_registries 'https://r.lan:5000/v2/x'", "insecure-registries", ["r.lan:5000"]),
    (
        'list default_ulimits \'{"nofile": {"Name": "nofile", "Hard": 9, "Soft": 5}, "core": 7}\'',
        "default-ulimits",
        {
            "core": {"Name": "core", "Soft": 7, "Hard": 7},
            "nofile": {"Name": "nofile", "Soft": 5, "Hard": 9},
        },
    ),
    # from web pages: quotation marks of texts, and spaces that nobody sees
    ("option bip ‘172.22.0.1/24’", "bip", "172.22.0.1/24"),
    ("list dns '\u200b1.1.1.1\u00a0'", "dns", ["1.1.1.1"]),
    ("list registry_mirrors 'https://m.lan\ufeff'", "registry-mirrors", ["https://m.lan/"]),
]


@pytest.mark.parametrize(
    ("driver", "options", "wanted"),
    [
        ("gelf", (), "gelf-address"),
        ("gelf", ("tag=x",), "gelf-address"),
        ("gelf", ("gelf-address=udp://192.168.1.5:12201",), ""),
        ("awslogs", ("awslogs-region=eu-1",), "awslogs-group"),
        ("splunk", ("splunk-url=https://splunk.lan",), "splunk-token"),
    ],
)
def test_a_log_driver_that_would_refuse_each_container_is_left_out(
    driver: str, options: tuple[str, ...], wanted: str
) -> None:
    lines = "".join(f"list log_opts '{option}'\n" for option in options)
    result = decoded(f"config globals 'globals'\noption log_driver '{driver}'\n{lines}")
    daemon = result.desired.daemon
    assert daemon is not None
    if not wanted:
        assert daemon.values["log-driver"] == driver
        return
    assert not {"log-driver", "log-opts"} & daemon.values.keys()
    assert daemon.left_out == {"log-driver", *(("log-opts",) if options else ())}
    assert f"needs {wanted}" in result.desired.daemon_mistakes[0]


REMAPPED = "config container 'web'\n\toption image 'nginx'\n"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("option privileged '1'", "privileged"),
        ("option network_mode 'host'", "network_mode"),
        ("list network 'host'", "network"),
        ("option pid 'host'", "pid"),
        ("option pid 'host'\n\toption userns 'host'", ""),
        ("option init '1'", ""),
    ],
)
@pytest.mark.parametrize("remap", ["default", ""])
def test_what_remapped_users_cannot_have_is_told(line: str, wrong: str, remap: str) -> None:
    dockerd = f"config globals 'globals'\n\toption userns_remap '{remap}'\n" if remap else ""
    result = decode(
        {
            "containers": parse(f"{REMAPPED}\t{line}\n", package="containers"),
            "dockerd": parse(dockerd, package="dockerd"),
        },
        paths={},
    )
    told = [(i.severity, i.option) for i in result.issues if "userns_remap" in i.message]
    assert told == ([("warning", wrong)] if wrong and remap else [])


@pytest.mark.parametrize(("line", "key", "value"), TAKEN)
def test_what_works_on_the_stock_package_is_taken_and_told(line: str, key: str, value: object) -> None:
    result = decoded(f"config globals 'globals'\n{line}\n")
    daemon = result.desired.daemon
    assert daemon is not None
    assert {issue.severity for issue in result.issues} == {"warning"}
    assert (result.desired.daemon_mistakes, daemon.left_out) == ((), frozenset())
    if key == "hosts":
        assert [host.text for host in daemon.hosts] == (value if isinstance(value, list) else [value])
    else:
        assert daemon.values.get(key) == value


def test_two_mirrors_in_one_entry_are_told_apart() -> None:
    (text,) = mistakes("list registry_mirrors 'https://a,https://b'")
    assert text == (
        "dockerd.globals.registry_mirrors[0]: 2 values in one entry, expected one mirror per entry (/etc/config/dockerd:2)"
    )


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("http_proxy '192.168.2.54:1079'", "http://192.168.2.54:1079"),
        ("http_proxy 'proxy.lan:3128'", "http://proxy.lan:3128"),
        ("http_proxy 'user:S3CRET@proxy.lan:3128'", "http://user:S3CRET@proxy.lan:3128"),
        ("https_proxy 'proxy.lan'", "http://proxy.lan"),
        ("no_proxy 'a.lan, b.lan 10.0.0.0/8'", "a.lan,b.lan,10.0.0.0/8"),
    ],
)
def test_a_proxy_is_taken_as_go_takes_it(line: str, value: str) -> None:
    result = decoded(f"config proxies 'proxies'\noption {line}\n")
    (issue,) = result.issues
    assert result.desired.daemon is not None
    assert (issue.severity, "S3CRET" in issue.text()) == ("warning", False)
    assert result.desired.daemon.values["proxies"] == {line.split()[0].replace("_", "-"): value}


def test_the_stock_template_with_every_comment_removed_has_no_mistake() -> None:
    result = decoded(
        """
config globals 'globals'
	option alt_config_file '/etc/docker/daemon.json'
	option data_root '/opt/docker/'
	option log_driver 'local'
	option log_level 'warn'
	option iptables '1'
	list hosts 'unix:///var/run/docker.sock'
	option bip '172.18.0.1/24'
	option fixed_cidr_v6 'fc00:1::/80'
	option ipv6 '1'
	option ip '::ffff:0.0.0.0'
	list dns '172.17.0.1'
	list registry_mirrors 'https://<my-docker-mirror-host>'
	list registry_mirrors 'https://hub.docker.com'

config proxies 'proxies'
	option http_proxy 'http://proxy.example.com:3128'
	option https_proxy 'https://proxy.example.com:3129'
	option no_proxy '*.test.example.com,.example.org,127.0.0.0/8'
"""
    )
    assert [issue.text() for issue in result.issues] == []


@pytest.mark.parametrize(
    ("lines", "left_out"),
    [
        ("option bip 'x'\noption log_level 'debug'", {"bip"}),
        ("option bip '172.18.0.1/24'\noption fixed_cidr '172.19.0.0/25'", {"fixed-cidr"}),
        ("list registry_mirrors 'docker.example'", {"registry-mirrors"}),
        ("list registry_mirrors 'docker.example'\nlist registry_mirrors 'https://m'", set()),
        (
            "option userns_remap 'default'\noption containerd_snapshotter '1'",
            {"features.containerd-snapshotter"},
        ),
        ("list log_level 'warn'\nlist log_level 'info'", {"log-level"}),
        ("option icc '0'\noption iptables '0'", {"icc"}),
        ("option log_driver 'none'\nlist log_opts 'a=b'", {"log-opts"}),
        ("list log_opts 'nosuch=b'", {"log-opts"}),
        ("list log_opts 'nosuch=b'\nlist log_opts 'max-size=1m'", set()),
    ],
)
def test_a_wrong_option_costs_that_option(lines: str, left_out: set[str]) -> None:
    result = decoded(f"config globals 'globals'\n{lines}\n")
    assert result.desired.daemon is not None
    assert result.desired.daemon_mistakes != ()
    assert result.desired.daemon.left_out == left_out
    assert not left_out & set(result.desired.daemon.values)


def test_a_mirror_without_a_scheme_is_told_the_whole_url() -> None:
    (text,) = mistakes("list registry_mirrors 'docker.1ms.run'")
    assert "expected https://docker.1ms.run" in text


def test_the_section_that_is_named_like_its_type_counts() -> None:
    result = decoded(
        "config globals\noption log_level 'debug'\n\nconfig globals 'globals'\noption log_level 'info'\n"
    )
    assert result.desired.daemon is not None
    assert result.desired.daemon.values["log-level"] == "info"


def test_fixed_cidr_without_bip_is_told_what_it_lacks() -> None:
    (text,) = mistakes("option fixed_cidr '10.112.0.0/16'")
    assert "option bip '10.112.0.1/16'" in text
    assert "default_address_pools" in text


@pytest.mark.parametrize("word", sorted(SUCCESSORS))
def test_words_of_forks_are_answered_with_their_successor(word: str) -> None:
    result = decoded(f"config globals 'globals'\noption {word} '1'\n")
    (issue,) = result.issues
    assert (issue.severity, issue.expected) == ("warning", SUCCESSORS[word].text)
    package, _, option = SUCCESSORS[word].option.rpartition(".")
    section = package.partition(".")[2]
    kinds = {"NAME": "container", "agent": "agent"}
    if section:
        assert option in properties(kinds.get(section, section))


def test_a_key_of_dockerd_that_is_not_offered_says_why() -> None:
    (text,) = mistakes("option default_gateway '172.17.0.9'")
    assert "a network section sets a gateway" in text


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        ("option mode 'files'", "tls.cacert: is missing"),
        ("option mode 'files'\noption verify '0'\noption cert '/c'", "tls.key: is missing"),
        ("option cert '/c'", "tls.cert: with mode auto the certificates are the agent's"),
        ("option days '10'\noption renew_days '10'", "expected less than days (10)"),
        ("option mode 'other'", "expected one of auto, files"),
    ],
)
def test_tls_settings_that_do_not_go_together_are_refused(lines: str, wrong: str) -> None:
    assert any(wrong in text for text in mistakes("", f"config tls 'tls'\n{lines}"))


def test_tls_that_is_off_does_not_need_its_files() -> None:
    assert settings("", "config tls 'tls'\noption enabled '0'\noption mode 'files'\n").tls is None


def test_all_mistakes_are_found_at_once_and_containers_go_on() -> None:
    result = decoded(
        "config globals 'globals'\noption bip 'x'\nlist dns 'y'\n\nconfig container 'web'\noption image 'a'\n"
    )
    assert len(result.desired.daemon_mistakes) == 2
    assert [container.section for container in result.desired.containers] == ["web"]
    assert result.desired.broken == frozenset()


def test_a_second_section_is_an_error_and_another_name_a_warning() -> None:
    (text,) = decoded("config globals 'globals'\n\nconfig globals 'other'\n").desired.daemon_mistakes
    assert "there is already a globals section" in text
    (issue,) = decoded("config globals 'main'\n").issues
    assert (issue.severity, issue.expected) == ("warning", "config globals 'globals'")


def test_a_password_in_a_proxy_or_a_log_option_is_in_no_message() -> None:
    for section, line in (
        ("proxies", "option http_proxy 'user:S3CRET'"),
        ("proxies", "option https_proxy 'http://user:S3CRET@:x'"),
        ("globals", "list log_opts 'S3CRET'"),
    ):
        result = decoded(f"config {section} '{section}'\n{line}\n")
        assert result.issues
        assert "S3CRET" not in " ".join(issue.text() for issue in result.issues)


def test_blocking_without_rules_of_dockerd_is_a_warning_that_says_how_to_have_it() -> None:
    section = "config firewall 'firewall'\n\tlist blocked_interfaces 'wan'\n"
    (text,) = mistakes("\toption iptables '0'", section)
    assert "option enforce '1'" in text
    assert (
        decoded(f"config globals 'globals'\n\toption iptables '0'\n\n{section}").desired.daemon_mistakes == ()
    )
    assert settings("\toption iptables '0'", section + "\toption enforce '1'\n").firewall[0].enforce
    assert not settings("\toption iptables '1'", section).firewall[0].enforce


def test_a_log_option_that_the_driver_does_not_know_costs_that_one() -> None:
    lines = "list log_opts 'max-size=10m'\nlist log_opts 'maxfile=3'\nlist log_opts 'tag=x'\n"
    result = decoded(f"config globals 'globals'\noption log_driver 'local'\n{lines}")
    assert result.desired.daemon is not None
    assert result.desired.daemon.values["log-opts"] == {"max-size": "10m"}
    assert [(issue.index, issue.line) for issue in result.issues] == [(1, 4), (2, 5)]


def test_a_name_server_in_the_container_itself_is_warned_of() -> None:
    (issue,) = decoded("config globals 'globals'\nlist dns '127.0.0.1'\nlist dns '192.168.1.1'\n").issues
    assert (issue.severity, issue.index) == ("warning", 0)
    assert "the router's address in the LAN" in issue.expected


@pytest.mark.parametrize(
    ("option", "where"),
    [("tls", "section tls"), ("ALL_PROXY", "dockerd.proxies.http_proxy"), ("bridge", "not offered here")],
)
def test_a_key_of_dockerd_that_is_no_option_is_answered_with_its_place(option: str, where: str) -> None:
    (text,) = (issue.text() for issue in decoded(f"config globals 'globals'\noption {option} '1'\n").issues)
    assert where in text and ("not offered here" in text) is (where == "not offered here")


def test_a_plugin_may_have_any_log_option() -> None:
    result = decoded(
        "config globals 'globals'\noption log_driver 'grafana/loki:latest'\nlist log_opts 'loki-url=http://l'\n"
    )
    assert result.desired.daemon is not None and not result.issues
    assert result.desired.daemon.values["log-opts"] == {"loki-url": "http://l"}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (
            "list blocked_interfaces '*'",
            "'*' is not the name of an interface or device: nothing is blocked for it",
        ),
        ("option extra_iptables_args '-j ACCEPT'", "-j is not allowed, so nothing is blocked"),
        ("option extra_iptables_args '! -s 203.0.113.0/24'", ""),
        ("list blocked_interfaces 'eth0.2'", ""),
    ],
)
def test_what_blocks_nothing_is_warned_of(line: str, wrong: str) -> None:
    result = decoded(f"config firewall 'firewall'\n\t{line}\n")
    assert [issue.message for issue in result.issues] == ([wrong] if wrong else [])
    assert all(issue.severity == "warning" for issue in result.issues)


def test_the_default_size_of_shared_memory_in_bytes_is_warned_of() -> None:
    result = decoded("config globals 'globals'\n\toption default_shm_size '64'\n")
    assert [(i.message, i.expected) for i in result.issues] == [("64 means 64 bytes", "64m")]
