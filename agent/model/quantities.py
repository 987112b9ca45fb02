# SPDX-License-Identifier: GPL-2.0-or-later
"""The syntax of simple option values: sizes, durations, CPUs, booleans, lists of words.

The syntax is that of `docker run` and UCI. Every parser is pure and raises `QuantityError`, which says what is wrong
and what is expected. `agent.model.entries` has the entries with several parts (ports, volumes, devices, ...).
"""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta
from decimal import Decimal

TRUE_WORDS = frozenset({"1", "yes", "on", "true", "enabled"})  # as in OpenWrt's scripts (config_get_bool)
FALSE_WORDS = frozenset({"0", "no", "off", "false", "disabled"})

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgtp])i?b?|b)?", re.IGNORECASE | re.ASCII)
_SIZE_FACTOR = {unit: 1024**power for power, unit in enumerate(("", "k", "m", "g", "t", "p"))}
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_AGE = re.compile(r"(\d{1,5})([mhdw])", re.ASCII)
_AGE_S = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)
_CPUS = re.compile(r"\d+(\.\d*)?|\.\d+", re.ASCII)
_INTEGER = re.compile(r"-?\d+", re.ASCII)
_SINCE_1970 = re.compile(r"\d{1,12}(\.\d{1,9})?", re.ASCII)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)
_INT64_MAX = 2**63 - 1
# characters; longer values are useless, and parsing them would take time (patterns, Decimal)
_NUMBER_MAX = 64
_SECONDS_MAX = 10**9  # about 31 years; a thread cannot wait for much longer times


class QuantityError(ValueError):
    """A value with wrong syntax: what is `wrong`, and what is `expected` instead."""

    def __init__(self, wrong: str, expected: str) -> None:
        super().__init__(f"{wrong}, expected {expected}")
        self.wrong = wrong
        self.expected = expected


def parse_bool(text: str) -> bool:
    """UCI's booleans: `1 yes on true enabled` and `0 no off false disabled`."""
    if text in TRUE_WORDS:
        return True
    if text in FALSE_WORDS:
        return False
    raise QuantityError(f"{text!r} is not a boolean", "1 (yes on true enabled) or 0 (no off false disabled)")


def parse_int(text: str, *, minimum: int = 0, maximum: int = _INT64_MAX) -> int:
    """A whole number within bounds."""
    bounds = f"a whole number of at least {minimum}" + (
        f", at most {maximum}" if maximum != _INT64_MAX else ""
    )
    # checked before `int`, which takes minutes for a million digits
    if not _INTEGER.fullmatch(text) or len(text) > 20:
        raise QuantityError(f"{text!r} is not a whole number", bounds)
    value = int(text)
    if not minimum <= value <= maximum:
        raise QuantityError(f"{text} is out of range", bounds)
    return value


_FEW = 64 * 1024  # bytes; a limit below this without a unit is a number of megabytes or kilobytes


def parse_size(text: str) -> int:
    """Bytes of `64m`, `1.5g`, `512kb`, `10MiB`, `4096`; units count in 1024 (docker/go-units RAMInBytes)."""
    expected = "a size such as 512k, 64m or 2g (b, k, m, g, t; 1024-based)"
    match = _SIZE.fullmatch(text)
    if match is None or len(text) > _NUMBER_MAX:
        raise QuantityError(f"{text!r} is not a size", expected)
    size = int(Decimal(match[1]) * _SIZE_FACTOR[(match[2] or "").lower()])
    if size > _INT64_MAX:
        raise QuantityError(f"{text!r} is too large", expected)
    return size


def few_bytes(text: str) -> str:
    """Why a size is questionable, "" if it is not: docker takes a number without a unit as bytes, and few mean that."""
    return f"{text} means {text} bytes" if text.isdigit() and 0 < int(text) < _FEW else ""


def size_words(size: int) -> str:
    """`512 KiB`, `1.4 GiB`."""
    number, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1000 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.1f} {unit}" if number < 10 and unit != "B" else f"{number:.0f} {unit}"


def parse_swap(text: str) -> int:
    """A size, or -1 for unlimited."""
    return -1 if text == "-1" else parse_size(text)


def parse_duration(text: str) -> int:
    """Nanoseconds of a Go duration: `1m30s`, `500ms`, `1.5h`. A bare number other than 0 is refused because it has no
    unit."""
    if text == "0":
        return 0
    expected = "a duration with units such as 30s, 1m30s or 500ms"
    # Go refuses a bare number; people who write one usually mean seconds
    if _NUMBER.fullmatch(text):
        raise QuantityError(f"{text!r} has no unit", f"{expected} (did you mean {text}s?)")
    if len(text) > _NUMBER_MAX:
        raise QuantityError(f"{text!r} is not a duration", expected)
    total, end = Decimal(0), 0
    while match := _DURATION_PART.match(text, end):
        total += Decimal(match[1]) * _NS[match[2]]
        end = match.end()
    if not text or end != len(text):
        raise QuantityError(f"{text!r} is not a duration", expected)
    if total > _INT64_MAX:
        raise QuantityError(f"{text!r} is too long", expected)
    return int(total)


def parse_seconds(text: str) -> float:
    """Seconds, from a plain number or a duration with units. Values too large for a waiting thread are refused."""
    try:
        seconds = float(text) if _NUMBER.fullmatch(text) else parse_duration(text) / 1e9
    except QuantityError:
        raise QuantityError(
            f"{text!r} is not a time", "seconds such as 5, or a duration such as 1m30s"
        ) from None
    if seconds > _SECONDS_MAX:
        raise QuantityError(f"{text!r} is too long", f"{_SECONDS_MAX} seconds at most")
    return seconds


def parse_moment(text: str, now: float) -> str:
    """Seconds since 1970 with nanoseconds, the form that the engine's log API accepts. The input is in such seconds, in
    RFC 3339 (UTC without a zone), or a duration back from `now` (unix seconds)."""
    if _SINCE_1970.fullmatch(text):
        return text
    try:
        if match := _RFC3339.fullmatch(text):
            day, clock, fraction, zone = match.groups()
            moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}{(zone or 'Z').upper()}")
            # integer arithmetic: a float cannot hold today's seconds with nanoseconds, and the engine compares
            # exactly
            seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
            return f"{max(0, seconds)}.{(fraction or '0').ljust(9, '0')}"
        return f"{max(0.0, now - parse_duration(text) / 1e9):.3f}"
    except ValueError:
        raise QuantityError(
            f"{text[:64]!r} is not a time", "a duration such as 10m, seconds since 1970 or an RFC 3339 time"
        ) from None


def parse_age(text: str) -> float:
    """Seconds of `90m`, `12h`, `7d`, `2w`, or `0`."""
    found = _AGE.fullmatch(text)
    if text != "0" and found is None:
        raise QuantityError(f"{text!r} is not an age", "a number with a unit such as 12h, 7d or 2w")
    return float(found[1]) * _AGE_S[found[2]] if found else 0.0


def parse_cpus(text: str) -> int:
    """Nano-CPUs of `1.5`, `.5` or `2.`."""
    expected = "a number of CPUs above 0 such as 0.5 or 2"
    if not _CPUS.fullmatch(text) or len(text) > _NUMBER_MAX:
        raise QuantityError(f"{text!r} is not a number of CPUs", expected)
    nano = int(Decimal(text) * 1_000_000_000)
    if not 0 < nano <= _INT64_MAX:
        raise QuantityError(f"{text} is out of range", expected)
    return nano


def split_words(text: str) -> tuple[str, ...]:
    """The words of a command line, split like a shell does. Errors never quote the text, because it may contain a
    password."""
    try:
        return tuple(shlex.split(text))
    except ValueError as exc:
        raise QuantityError(str(exc).lower(), "words as a shell splits them, with quotes closed") from None


def parse_pair(text: str) -> tuple[str, str]:
    """`key=value`, or `key` for an empty value. Errors never quote the text, because the value may be a secret."""
    key, _, value = text.partition("=")
    if not key.strip() or key != key.strip():
        raise QuantityError("missing name before `=`", "NAME=value")
    return key, value


def parse_assignment(text: str) -> tuple[str, str]:
    """`key=value`; the value is mandatory."""
    if "=" not in text:
        raise QuantityError("the entry has no `=`", "NAME=value")
    return parse_pair(text)


# When a router's clock counts as set: many routers have no battery and boot with a date years in the past, until NTP
# answers.


_SET_AFTER = 1_704_067_200.0  # 2024-01-01 UTC


def clock_is_set(now: float) -> bool:
    """`now`: wall clock in unix seconds."""
    return now > _SET_AFTER


def is_later(now: float, then: float) -> bool:
    """Whether the time between two moments of the wall clock is known: the clock was neither set back nor set for the
    first time since `then`."""
    return then <= now and (clock_is_set(then) or not clock_is_set(now))
