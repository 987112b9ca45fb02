# SPDX-License-Identifier: GPL-2.0-or-later
"""UCI text: our parser alone, our parser against libuci, and whole files up to the resources that they declare."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from typing import Any

from agent.files import uci_store
from agent.model.dockerd.settings import DaemonTarget
from agent.model.identity import canonical, masked, spec_hash
from agent.model.issues import Issue
from agent.plan.container.bodies import container_body
from agent.plan.daemon import render
from agent.runtime.holds import section_hash
from agent.uci.decode import DecodeResult, decode
from agent.uci.encode import encode_container
from agent.uci.syntax import Package, Section, UciSyntaxError, _Parser, format_file, parse
from tests.fuzz.target import DATA, Target, as_text
from tests.fuzz.values import MESSAGE_LIMIT
from tests.support.real_uci import why_not

_PLAIN_TYPE = re.compile(r"[A-Za-z0-9_-]+")
_SAMPLES = (
    (
        b"config container 'web'\n\toption image 'busybox'\n\toption memory '64m'\n\tlist port '8080:80/tcp'\n"
        b"\tlist env 'A=b c'\n\tlist volume '/mnt/x:/x:ro'\n\tlist volume 'data:/d'\n\tlist network 'lan,ip=10.1.0.9'\n"
        b"\toption command 'sh -c \"a b\"'\n\toption restart 'on-failure:3'\n\tlist depends_on 'db:healthy'\n"
        b"config container 'db'\n\toption image 'x'\n\toption health_cmd 'true'\n\toption stop_timeout '1m30s'\n"
        b"\tlist wait_for 'device:usb:0658:0200'\n\tlist ulimit 'nofile=1:2'\n\toption cpus '0.5'\n\toption gate '0.5'\n"
        b"config network 'lan'\n\tlist subnet '10.1.0.0/24'\n\tlist gateway '10.1.0.1'\n\tlist aux_address 'a=10.1.0.7'\n"
        b"config volume 'data'\n\tlist opt 'type=tmpfs'\nconfig agent\n\tlist listen '192.168.1.1:2380'\n"
        b"\toption resync '60'\nconfig auth\n\toption username 'a'\n\toption password 'b'\n"
    ),
    (
        b"config globals 'globals'\n\toption data_root '/opt/docker/'\n\tlist hosts 'unix:///var/run/docker.sock'\n"
        b"\tlist log_opts 'max-size=10m'\n\tlist registry_mirrors 'https://m.lan'\n\toption bip '172.18.0.1/24'\n"
        b"\tlist default_address_pools '10.10.0.0/16,24'\n\tlist default_ulimits 'nofile=1:2'\n\tlist dns '1.1.1.1'\n"
        b"config proxies 'proxies'\n\toption http_proxy 'http://p.lan:3128'\nconfig tls 'tls'\n\toption enabled '1'\n"
        b"\tlist san 'router.lan'\nconfig firewall 'f'\n\toption device 'docker0'\n\tlist blocked_interfaces 'wan'\n"
        b"\toption extra_iptables_args '--match conntrack'\n"
    ),
)
_WORDS = (
    b"config ", b"option ", b"list ", b"package ", b"\n\toption ", b"\n\tlist ", b"'", b'"', b"\\", b";", b"#", b"\n",
    b"\r\n",
    b"\0", b"\\\n", b"'\\''", b" ; ", b"c ", b"o ", b"l ", b"p ", b"\xff", b"\xc3\xa9", b"name", b"container",
)  # fmt: skip


@cache
def _corpus() -> tuple[bytes, ...]:
    lines = (DATA / "uci-corpus" / "read.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line)["input"].encode("utf-8", "surrogateescape") for line in lines)


def _shape(package: Package) -> list[Any]:
    """All but the lines, which change when a file is written anew."""
    return [(s.type, s.name, s.anonymous, [(o.name, o.value) for o in s.options]) for s in package.sections]


def _parsed(data: bytes) -> Package | None:
    text = as_text(data)
    try:
        package = parse(text, package="test")
    except UciSyntaxError as exc:
        assert 1 <= exc.line <= text.count("\n") + 1, f"line {exc.line}"
        assert str(exc).startswith("Parse error ("), str(exc)
        return None
    last = text.count("\n") + 1
    for section in package.sections:
        lines = [section.line, *(line for option in section.options for line in option.lines)]
        assert all(1 <= line <= last for line in lines), f"lines {lines} of {last}"
    return package


def check_text(data: bytes) -> None:
    package = _parsed(data)
    # libuci does not quote types, and a generated name can be one that was given: a file cannot say such a package
    if package is None or len({s.name for s in package.sections}) < len(package.sections):
        return
    if all(_PLAIN_TYPE.fullmatch(section.type) for section in package.sections):
        assert _shape(parse(format_file(package), package="test")) == _shape(package)


def check_against_libuci(data: bytes) -> None:
    """Accepted or refused by both, and with the same values.

    Known differences, which are passed over: pyuci gives no types and no anonymity, and of two sections with one name
    only the last; what an older libuci makes of a section that is opened again (file.c, uci_parse_config). And pyuci
    gets other bytes (agent.files.uci_store), so that what a zero byte swallows differs behind one that is not ASCII.
    """
    package = _parsed(data)
    if (package is not None and _opens_again(data)) or (b"\0" in data and not data.isascii()):
        return
    try:
        theirs = uci_store.read_with_libuci(data)
    except uci_store.LibuciError:
        assert package is None, "libuci refuses it"
        return
    assert package is not None, "libuci takes it"
    ours = {s.name: {o.name: o.value for o in s.options} for s in package.sections}
    assert ours == theirs


class _Watched(_Parser):
    """Notes whether a section is opened again."""

    again = False

    def _config(self, verb: str) -> None:
        before = len(self._drafts)
        super()._config(verb)
        self.again |= len(self._drafts) == before


def _opens_again(data: bytes) -> bool:
    parser = _Watched(as_text(data), "test")
    parser.run()
    return parser.again


def check_sections(data: bytes) -> None:
    """The first byte chooses the package."""
    name = ("containers", "dockerd")[data[0] % 2] if data else "containers"
    try:
        package = parse(as_text(data[1:]), package=name)
    except UciSyntaxError:
        return
    result = decode({name: package}, paths={name: f"/etc/config/{name}"})
    for issue in result.issues:
        _check_issue(issue, package)
    _check_use(result)


def _check_issue(issue: Issue, package: Package) -> None:
    text = issue.text()
    assert issue.message and issue.place.startswith(package.name), text
    assert issue.line > 0 and f":{issue.line})" in text, text
    assert len(issue.message) < MESSAGE_LIMIT, f"a message of {len(issue.message)} characters"
    text.encode()  # it goes into the log, the status and replies


def _check_use(result: DecodeResult) -> None:
    """What the agent does with every pass, and the way back into a file."""
    for container in result.desired.containers:
        spec_hash(masked(canonical(container.spec)))
        section_hash(container)
        json.dumps(container_body(container, labels={}, image="x", api=(1, 41))).encode()
    # alone: sections of others cannot be told from these names, and an env_file is not read here
    for container in result.desired.containers:
        if not container.spec.endpoints and not container.policy.depends_on:
            _check_way_back(encode_container(container))
    if result.desired.daemon is None:
        return
    rendered = render(result.desired.daemon, version=(28, 5), socket="/var/run/docker.sock")
    assert json.loads(DaemonTarget(document=rendered.document).text) == rendered.document


def _check_way_back(section: Section) -> None:
    """What was written is a file that says the same as what was written."""
    text = format_file(Package(name="containers", sections=(section,)))
    first = decode({"containers": parse(text, package="containers")}, paths={}).desired
    again = [encode_container(container) for container in first.containers]
    assert again in ([], [section]), f"{section!r} came back as {again!r}"


def _prefixed(number: int, texts: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(bytes([number]) + text for text in texts)


_REPEATS = (
    (b"", b"config c\n"),
    (b"config c a\n", b"list x y\n"),
    (b"config c a\n", b"o a b ; "),
    (b"config c a\n", b"l a b ; "),
    (b"config c a\noption x a", b"\\\n"),
    (b"config c a\noption x 'a", b"a\n"),
    (b'config c a\noption x "', b"\\a"),
)
_SECTION_REPEATS = (
    (b"\0", b"config container\n\toption image a\n"),
    (b"\0config network lan\n", b"\tlist subnet 10.0.0.0/24\n"),
    *(
        (b"\0config container web\n\toption image a\n", b"\tlist " + entry + b"\n")
        for entry in (
            b"env A=b",
            b"port 1-60000:1-60000",
            b"port 80",
            b"volume a:/b",
            b"network lan",
            b"x y",
            b"command a",
        )
    ),
    (b"\0config container web\n\toption image '", b"x"),
    (b"\0config container web\n\toption command '", b"a "),
    (b"\1config globals globals\n", b"\tlist hosts tcp://127.0.0.1:1\n"),
)

TEXT = Target(name="uci", check=check_text, seeds=(*_SAMPLES, *_corpus()), words=_WORDS, repeats=_REPEATS)
LIBUCI = replace(TEXT, name="libuci", check=check_against_libuci)
SECTIONS = Target(
    name="sections",
    check=check_sections,
    seeds=(*_prefixed(0, _SAMPLES[:1]), *_prefixed(1, _SAMPLES[1:])),
    words=(*_WORDS, b"-1", b"64m", b"80:80", b"http://[", b"%", b"1e9", b"enabled", b"'\n\toption name '"),
    repeats=_SECTION_REPEATS,
)
TARGETS = (TEXT, SECTIONS) if why_not() else (TEXT, LIBUCI, SECTIONS)
