# SPDX-License-Identifier: GPL-2.0-or-later
"""What registries may send: read as the specification says, or refused, whatever it is."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire import registry as wire
from agent.wire.registry import Challenge, Limit, RegistryFormatError

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Bearer realm="https://a/t",service="s, t",scope="x"', Challenge("bearer", "https://a/t", "s, t")),
        ('bearer service=s,realm="https://a/t"', Challenge("bearer", "https://a/t", "s")),
        ('Basic realm="x", Bearer realm="https://a/t"', Challenge("bearer", "https://a/t", "")),
        ('Basic realm="Bearer x"', Challenge("basic")),
        ("Basic", Challenge("basic")),
        ("Bearer", None),
        ('Negotiate abc, Digest realm="x"', None),
        ("", None),
    ],
)
def test_a_challenge_is_found_among_others(header: str, found: Challenge | None) -> None:
    assert wire.challenge(header) == found


def test_limits_and_digests() -> None:
    assert wire.limit({"ratelimit-remaining": "76;w=21600"}) == Limit(76, 21600)
    assert wire.limit({"ratelimit-remaining": "0"}) == Limit(0, 3600)
    assert wire.limit({"ratelimit-remaining": "many"}) is None
    assert wire.digest_of({"docker-content-digest": DIGEST}) == DIGEST
    assert wire.digest_of({"docker-content-digest": f"{DIGEST}\r\nX: y"}) == ""
    assert wire.error_code(b'{"errors":[{"code":"DENIED","message":"S3CRET"}]}') == "DENIED"
    assert wire.error_code(b'{"errors":[{"code":"not a code S3CRET"}]}') == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(DIGEST),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "config",
                    "layers",
                    "manifests",
                    "digest",
                    "size",
                    "platform",
                    "os",
                    "rootfs",
                    "diff_ids",
                    "token",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=64))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    wire.error_code(body)
    for read in (
        wire.token_of,
        wire.members,
        wire.manifest,
        wire.diff_ids,
        lambda b: wire.member_for(b, "linux/arm/v7"),
    ):
        try:
            read(body)
        except RegistryFormatError as exc:
            assert str(exc)


def test_a_size_that_no_image_has_and_nesting_are_refused() -> None:
    for size in (-1, 10**400, True, "5"):
        layer = {"digest": DIGEST, "size": size}
        with pytest.raises(RegistryFormatError):
            wire.manifest(json.dumps({"config": layer, "layers": []}).encode())
    with pytest.raises(RegistryFormatError):
        wire.members(b"[" * 100_000)


@given(st.text(max_size=200))
def test_any_header_is_read(text: str) -> None:
    headers = dict.fromkeys(
        ("docker-content-digest", "content-type", "ratelimit-remaining", "retry-after"), text
    )
    wire.challenge(text)
    wire.digest_of(headers)
    wire.is_index(headers)
    wire.limit(headers)
    assert 1 <= wire.retry_after(headers, 0) <= 86400


@pytest.mark.parametrize("piece", ["a", " ", ",", "bearer ", 'a="', "a=b,", "\\"])
def test_a_header_of_any_length_takes_little_time(piece: str) -> None:
    begin = time.process_time()
    for length in (4000, 65_000):
        wire.challenge("Bearer " + (piece * length)[:length])
        wire.digest_of({"docker-content-digest": (piece * length)[:length]})
    assert time.process_time() - begin < 2
