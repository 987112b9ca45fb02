# SPDX-License-Identifier: GPL-2.0-or-later
"""daemon.json of given settings, and what a change of it takes."""

from __future__ import annotations

import dataclasses

import pytest

from agent.model.dockerd.settings import (
    DaemonSettings,
    DaemonTarget,
    Document,
    Effect,
    Host,
    Json,
    TlsSettings,
)
from agent.model.dockerd.table import TABLE, suspects, value_at, without
from agent.model.dockerd.values import parse_host
from agent.plan.daemon import Identity, Rendered, classify, masked, minimal, render

NEW = (29, 0)
OLD = (20, 10)
SOCKET = "/var/run/docker.sock"
IDENTITY = Identity(cacert="/ca", cert="/cert", key="/key")


def rendered(
    *hosts: str,
    tls: TlsSettings | None = None,
    allow: bool = False,
    identity: Identity | None = IDENTITY,
    **more: Json,
) -> Rendered:
    values = {name.replace("_", "-"): value for name, value in more.items()}
    settings = DaemonSettings(
        values=values, hosts=tuple(map(parse_host, hosts)), tls=tls, allow_insecure_tcp=allow
    )
    return render(settings, version=NEW, socket=SOCKET, identity=identity)


def insecure(found: Rendered) -> tuple[bool, str]:
    (finding,) = found.findings
    return finding.status, finding.reason


def test_settings_that_say_nothing_give_the_stock_defaults_and_what_a_reload_would_keep() -> None:
    assert rendered().document == {
        "data-root": "/opt/docker",
        "debug": False,
        "default-shm-size": "67108864",
        "hosts": [f"unix://{SOCKET}"],
        "insecure-registries": [],
        "ip6tables": False,
        "iptables": True,
        "labels": [],
        "live-restore": False,
        "log-level": "warn",
        "max-concurrent-downloads": 3,
        "max-concurrent-uploads": 5,
        "registry-mirrors": [],
        "shutdown-timeout": 15,
        "tls": False,
    }


def test_every_key_that_a_reload_applies_has_an_explicit_default() -> None:
    assert [row.uci for row in TABLE if row.effect is Effect.RELOAD and row.default is None] == []


def test_the_file_does_not_depend_on_the_order_of_options() -> None:
    one = DaemonTarget(document={"debug": True, "mtu": 1400})
    two = DaemonTarget(document={"mtu": 1400, "debug": True})
    assert one.text == two.text
    assert one.digest == two.digest


@pytest.mark.parametrize("host", ["unix:///var/run/docker.sock", "unix:///run/docker.sock"])
def test_the_agents_socket_is_among_the_hosts_once(host: str) -> None:
    assert rendered(host, "unix:///run/other.sock").document["hosts"] == [
        f"unix://{SOCKET}",
        "unix:///run/other.sock",
    ]


@pytest.mark.parametrize("host", ["tcp://0.0.0.0:2375", "tcp://192.168.1.1:2375", "tcp://[::]:2375"])
def test_a_host_that_others_reach_without_a_certificate_is_refused_and_the_rest_is_applied(host: str) -> None:
    found = rendered(host, "tcp://127.0.0.1:2375", "tcp://[::1]:2375", debug=True)
    assert found.document["hosts"] == [f"unix://{SOCKET}", "tcp://127.0.0.1:2375", "tcp://[::1]:2375"]
    assert found.document["debug"] is True
    assert insecure(found) == (True, "Refused")
    assert host in found.findings[0].message


def test_encryption_without_client_certificates_is_not_enough() -> None:
    assert insecure(rendered("tcp://0.0.0.0:2376", tls=TlsSettings(verify=False))) == (True, "Refused")


def test_an_insecure_host_that_is_allowed_is_a_lasting_warning() -> None:
    found = rendered("tcp://0.0.0.0:2375", allow=True)
    assert found.document["hosts"] == [f"unix://{SOCKET}", "tcp://0.0.0.0:2375"]
    assert found.document["tls"] is False
    assert "tlsverify" not in found.document
    assert insecure(found) == (True, "Allowed")


def test_tls_with_client_certificates_opens_any_host() -> None:
    found = rendered("tcp://0.0.0.0:2376", tls=TlsSettings())
    assert found.document["hosts"] == [f"unix://{SOCKET}", "tcp://0.0.0.0:2376"]
    tls = {key: value for key, value in found.document.items() if key.startswith("tls")}
    assert tls == {"tls": True, "tlsverify": True, "tlscacert": "/ca", "tlscert": "/cert", "tlskey": "/key"}
    assert insecure(found) == (False, "Secure")


def test_without_certificates_no_tcp_host_is_opened() -> None:
    found = rendered("tcp://0.0.0.0:2376", "tcp://127.0.0.1:2376", tls=TlsSettings(), identity=None)
    assert (found.document["hosts"], found.document["tls"]) == ([f"unix://{SOCKET}"], False)


def test_a_key_that_the_engine_is_too_old_for_is_left_out_with_a_warning() -> None:
    settings = DaemonSettings(values={"proxies": {"http-proxy": "http://user:S3CRET@p:1"}})
    old, new = (render(settings, version=version, socket=SOCKET) for version in (OLD, NEW))
    assert "proxies" not in old.document
    assert list(map(str, old.left_out)) == [
        "http_proxy is left out: dockerd 20.10 does not know it (since 23.0)"
    ]
    assert new.document["proxies"] == {"http-proxy": "http://user:S3CRET@p:1"}
    assert b"S3CRET" not in masked(new.document)


def test_what_an_option_of_its_own_says_of_features_is_left_out_with_it() -> None:
    settings = DaemonSettings(values={"features": {"buildkit": True, "containerd-snapshotter": True}})
    old, new = (render(settings, version=version, socket=SOCKET) for version in (OLD, NEW))
    assert old.document["features"] == {"buildkit": True}
    assert [option for option, _ in old.left_out] == ["containerd_snapshotter"]
    assert new.document["features"] == {"buildkit": True, "containerd-snapshotter": True}


def test_ip6tables_is_experimental_before_27() -> None:
    settings = DaemonSettings(values={"ip6tables": True})
    assert render(settings, version=(26, 1), socket=SOCKET).document["experimental"] is True
    assert "experimental" not in render(settings, version=(27, 0), socket=SOCKET).document


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.uci)
def test_a_change_takes_what_the_table_says_and_names_no_value(row: object) -> None:
    assert dataclasses.is_dataclass(row)
    key = row.key.partition(".")[0]  # type: ignore[attr-defined] # a row of TABLE
    effect, stops = row.effect, row.stops  # type: ignore[attr-defined]
    change = classify(
        DaemonTarget(document={"debug": False}), DaemonTarget(document={"debug": False, key: "S3CRET"})
    )
    assert (change.effect, change.stops) == (effect, stops)
    assert change.cause in {f"{key} set", "debug changed"}


def test_reload_keys_beside_a_restart_key_take_the_restart() -> None:
    old, new = DaemonTarget(document={"debug": False}), DaemonTarget(document={"debug": True, "hosts": ["x"]})
    change = classify(old, new)
    assert (change.effect, change.stops) == (Effect.RESTART, False)
    assert change.causes == ("debug changed", "hosts set")


@pytest.mark.parametrize(
    ("change", "effect"),
    [
        ({}, Effect.NOTHING),
        ({"material": "other"}, Effect.RESTART),
        ({"arguments": ("-x",)}, Effect.RESTART),
    ],
)
def test_certificates_and_arguments_take_a_restart(change: dict[str, object], effect: Effect) -> None:
    old = DaemonTarget(document={"tls": True}, material="one")
    assert classify(old, dataclasses.replace(old, **change)).effect is effect  # type: ignore[arg-type]


def test_other_certificates_do_not_matter_without_tls() -> None:
    old = DaemonTarget(document={"tls": False}, material="one")
    assert classify(old, dataclasses.replace(old, material="two")).effect is Effect.NOTHING


def test_the_minimal_document_keeps_the_data_and_the_firewall() -> None:
    document = rendered("tcp://0.0.0.0:2376", tls=TlsSettings(), iptables=False, data_root="/mnt/d").document
    assert minimal(document, socket=SOCKET) == {
        "data-root": "/mnt/d",
        "hosts": [f"unix://{SOCKET}"],
        "ip6tables": False,
        "iptables": False,
        "live-restore": True,
        "tls": False,
    }


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [  # as dockerd 20.10 to 29 say it
        ("storage-opts", ["size=10G"], "error initializing graphdriver: overlay2: unknown option size"),
        ("storage-driver", "btrfs", "error initializing graphdriver: prerequisites for driver not satisfied"),
        (
            "log-opts",
            {"foo": "bar"},
            "failed to set log opts: unknown log opt 'foo' for json-file log driver",
        ),
        ("seccomp-profile", "/none.json", "opening seccomp profile (/none.json) failed: open /none.json"),
        ("userns-remap", "joe:staff", 'Error during uid lookup for "joe": getent unable to find entry "joe"'),
        ("ipv6", True, "IPv6 is enabled for the default bridge, but no subnet is configured"),
        (
            "insecure-registries",
            ["a_b.lan:5000"],
            'insecure registry a_b.lan:5000 is not valid: invalid host "a_b.lan"',
        ),
        ("default-address-pools", [{"base": "10.9.0.0/16", "size": 24}], "invalid address pool"),
        ("log-opts", {"syslog-facility": "x"}, "failed to set log opts: invalid syslog facility"),
        ("", None, "failed to start containerd: timeout waiting for containerd to start"),
        ("", None, "mkdir /mnt/sda1/docker: read-only file system"),
    ],
)
def test_dockerds_words_name_the_option_that_they_are_about(key: str, value: Json, words: str) -> None:
    others: dict[str, Json] = {
        "data-root": "/mnt/sda1/docker",
        "bip": "172.18.0.1/24",
        "registry-mirrors": ["https://mirror.lan/"],
    }
    document: dict[str, Json] = {
        **others,
        "log-level": "debug",
        "live-restore": True,
        **({key: value} if key else {}),
    }
    assert suspects(document, f"dockerd did not start: failed to start daemon: {words}") == (
        (key,) if key else ()
    )


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            {"storage-driver": "overlay2", "storage-opts": ["size=10G"]},
            "error initializing graphdriver: overlay2: unknown option size: overlay2",
        ),
        (
            {"log-driver": "local", "log-opts": {"foo": "bar"}},
            "failed to set log opts: unknown log opt 'foo' for local log driver",
        ),
    ],
)
def test_an_entry_is_to_blame_before_the_driver_that_it_is_for(document: Document, words: str) -> None:
    assert suspects(document, words)[0] == list(document)[1]


@pytest.mark.parametrize(
    ("document", "words", "entry"),
    [
        (
            {"log-opts": {"max-size": "1m", "maxsize": "10m"}},
            "failed to set log opts: unknown log opt 'maxsize' for json-file log driver",
            "log-opts.maxsize",
        ),
        (
            {"storage-driver": "overlay2", "storage-opts": ["overlay2.size=1G", "nosuch=1"]},
            "error initializing graphdriver: overlay2: unknown option nosuch",
            "storage-opts.nosuch=1",
        ),
    ],
)
def test_one_entry_of_a_list_is_to_blame_before_all_of_it(document: Document, words: str, entry: str) -> None:
    first, second, *_ = suspects(document, words)
    assert (first, second) == (entry, entry.partition(".")[0])
    assert value_at(without(document, entry), entry) is None
    assert value_at(without(document, entry), second)


def test_an_entry_that_dockerd_refuses_costs_that_entry() -> None:
    values: dict[str, Json] = {
        "log-opts": {"max-size": "1m", "gelf-x": "1"},
        "dns": ["192.168.1.1", "192.168.1.2"],
        "default-address-pools": [{"base": "10.1.0.0/16", "size": 24}, {"base": "10.2.0.0/16", "size": 24}],
    }
    refused = {"dns.192.168.1.1": "x", 'default-address-pools.{"base": "10.2.0.0/16", "size": 24}': "y"}
    found = render(DaemonSettings(values=values), version=NEW, socket=SOCKET, refused=refused)
    assert found.document["log-opts"] == {"max-size": "1m"}
    assert found.document["dns"] == ["192.168.1.2"]
    assert found.document["default-address-pools"] == [{"base": "10.1.0.0/16", "size": 24}]
    assert [left.option for left in found.left_out] == ["log_opts", "dns", "default_address_pools"]


def test_a_log_option_of_a_newer_dockerd_is_left_out() -> None:
    values: dict[str, Json] = {
        "log-driver": "fluentd",
        "log-opts": {"fluentd-address": "x:1", "fluentd-read-timeout": "1s"},
    }
    old = render(DaemonSettings(values=values), version=OLD, socket=SOCKET)
    assert old.document["log-opts"] == {"fluentd-address": "x:1"}
    assert "fluentd-read-timeout is left out: dockerd 20.10 does not know it (since 29.0)" in str(
        old.left_out[0]
    )
    assert rendered(**values).document["log-opts"] == values["log-opts"]


def test_without_a_log_driver_its_options_go_too() -> None:
    document: Document = {"log-driver": "syslog", "log-opts": {"syslog-address": "udp://x:1", "tag": "x"}}
    assert without(document, "log-driver") == {"log-opts": {"tag": "x"}}


def test_a_socket_that_cannot_be_made_is_not_among_the_hosts() -> None:
    host = parse_host("unix:///no/such.sock")
    assert isinstance(host, Host)
    found = render(DaemonSettings(hosts=(host,)), version=NEW, socket=SOCKET, unavailable={host.text})
    assert found.document["hosts"] == [f"unix://{SOCKET}"]
