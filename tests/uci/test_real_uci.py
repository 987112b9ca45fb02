# SPDX-License-Identifier: GPL-2.0-or-later
"""The real `uci` reads what we write, and we read and print what it does."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.errors import ConflictError
from agent.files.uci_store import PyuciStore, TextUciStore
from agent.uci.edit import set_value, stage
from agent.uci.syntax import (
    Option,
    Package,
    Section,
    UciSyntaxError,
    format_export,
    format_show,
    generated_name,
)
from tests.support.real_uci import RealUci

TYPES = ["container", "network", "volume", "a-b", "x!", "auth"]
NAMES = ["web", "db", "zigbee2mqtt", "x_y", "0", "A1"]
OPTIONS = ["image", "port", "env", "command", "x_1", "label"]
PARTS = [
    "a",
    "80:80",
    "it's",
    '"',
    "\\",
    "\n",
    "\t",
    " ",
    "#",
    ";",
    "é",
    "✓",
    "\udcff",
    "$(x)",
    "\r",
    "\x01",
    "''",
    "=",
]
CASES = 200


def made_value(chance: random.Random) -> str:
    return "".join(chance.choices(PARTS, k=chance.randint(1, 6)))


def made_package(chance: random.Random) -> Package:
    """Any package that the syntax can hold."""
    sections = []
    names = chance.sample(NAMES, len(NAMES))
    for number in range(chance.randint(0, 5)):
        anonymous = chance.random() < 0.3
        section_type = chance.choice(TYPES)
        options = tuple(
            Option(
                name=name,
                value=made_value(chance)
                if chance.random() < 0.6
                else tuple(chance.choice(["", made_value(chance)]) for _ in range(chance.randint(1, 3))),
            )
            for name in chance.sample(OPTIONS, chance.randint(0, 4))
        )
        name = generated_name(number + 1, section_type) if anonymous else names[number]
        sections.append(Section(type=section_type, name=name, anonymous=anonymous, options=options))
    return Package(name="test", sections=tuple(sections))


def made_text(chance: random.Random) -> bytes:
    """A file as a person might write it: any quoting, comments, several commands in a line; now and then wrong."""
    lines = []
    # each name once: where an option that is set again goes, old libuci and new do not agree (list.c, uci_set)
    for name in chance.sample(["", "", *NAMES], chance.randint(1, 4)):
        # one type: libuci refuses a section that comes again with another
        lines.append(f"config {quoted(chance, 'container')} {quoted(chance, name) if name else ''}")
        for option in chance.sample(OPTIONS, chance.randint(0, 4)):
            verb, times = chance.choice([("option", 1), ("list", 2), ("l", 1), ("o", 1)])
            lines += [
                f"{chance.choice(['', '  ', chr(9)])}{verb} {option} {quoted(chance, made_value(chance))}"
            ] * times
        if chance.random() < 0.1:
            lines.append(
                chance.choice(
                    ["nonsense", "option a-b c", "option x 'open", "list y a b", "package other", ";"]
                )
            )
    ends = chance.choices(["", " # comment", " ; "], weights=[20, 10, 1], k=len(lines))
    text = "\n".join(line + end for line, end in zip(lines, ends, strict=True)) + chance.choice(["", "\n"])
    return text.encode("utf-8", "surrogateescape")


def quoted(chance: random.Random, value: str) -> str:
    """Some way to write it."""
    parts = []
    for character in value:
        style = chance.choice("'\"b")
        if character == "'" or (style == '"' and character not in "\n\r"):
            parts.append('"' + ("\\" if character in '"\\' else "") + character + '"')
        elif style == "b" and character.isalnum():
            parts.append(character)
        else:
            parts.append(f"'{character}'")
    return "".join(parts) or "''"


def stores(uci: RealUci) -> list[TextUciStore]:
    return [kind(config_dir=uci.config, override_dir=Path("/none")) for kind in (TextUciStore, PyuciStore)]


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("seed", range(4))
def test_uci_reads_what_we_write(uci: RealUci, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(CASES // 4):
        package = made_package(chance)
        for store in stores(uci):
            store.commit(package)
            assert uci("export", "test") == as_bytes(format_export(package))
            assert uci("-X", "show", "test") == as_bytes(format_show(package))


@pytest.mark.parametrize("seed", range(4))
def test_what_uci_commits_is_what_we_would_have_written(uci: RealUci, seed: int) -> None:
    """Staged with `uci import`, which prints nothing and writes at once."""
    chance = random.Random(seed)
    path = uci.config / "test"
    for _ in range(CASES // 4):
        package = made_package(chance)
        path.unlink(missing_ok=True)
        done = uci.run("import", "test", text=as_bytes(format_export(package)))
        assert done.returncode == 0, done.stderr
        theirs = path.read_bytes()
        for store in stores(uci):
            assert format_export(store.load("test")) == format_export(package)
            store.commit(store.load("test"))
            assert path.read_bytes() == theirs


@pytest.mark.parametrize("seed", range(4))
def test_we_read_and_refuse_what_uci_reads_and_refuses(uci: RealUci, seed: int) -> None:
    chance = random.Random(seed)
    refused = 0
    for _ in range(CASES // 4):
        text = made_text(chance)
        (uci.config / "test").write_bytes(text)
        export = uci.run("export", "test")
        show = uci.run("-X", "show", "test")
        for store in stores(uci):
            try:
                package = store.load("test")
            except UciSyntaxError as exc:
                refused += 1
                assert export.returncode != 0, text
                assert export.stderr.endswith(as_bytes(f"uci: {exc}\n"))
            else:
                assert as_bytes(format_export(package)) == export.stdout, text
                assert as_bytes(format_show(package)) == show.stdout, text
    assert 0 < refused < CASES // 4  # by either store: at least half of the files are good ones


@pytest.mark.parametrize("kind", ["text", "pyuci"])
@pytest.mark.parametrize("form", ["show", "export"])
def test_the_command_prints_what_uci_prints(
    uci: RealUci, capfdbinary: pytest.CaptureFixture[bytes], kind: str, form: str
) -> None:
    chance = random.Random(7)
    command = [
        "uci",
        form,
        "test",
        "--store",
        kind,
        "--config-dir",
        str(uci.config),
        "--override-dir",
        "/none",
    ]
    for _ in range(20):
        (uci.config / "test").write_bytes(made_text(chance))
        real = uci.run(*(["-X"] if form == "show" else []), form, "test")
        code = main(command)
        printed = capfdbinary.readouterr()
        assert printed.out == real.stdout
        assert (code == 0) == (real.returncode == 0)
        # after the name of the command; ours says no more than uci does
        assert printed.err.partition(b": ")[2] == real.stderr.partition(b"uci: ")[2]


def test_the_command_names_a_package_that_is_missing(uci: RealUci, capfd: pytest.CaptureFixture[str]) -> None:
    for kind in ("text", "pyuci"):
        assert main(["uci", "show", "gone", "--store", kind, "--config-dir", str(uci.config)]) == 1
        assert capfd.readouterr().err == f"ucidockd: there is no {uci.config}/gone\n"


def test_two_agents_that_count_lose_no_number(uci: RealUci) -> None:
    """Compare and commit, by several processes at once: each number that was committed stays counted."""
    (uci.config / "test").write_text("config c 'a'\n\toption count '0'\n")
    program = (
        "import sys\nfrom pathlib import Path\nfrom tests.uci.test_real_uci import count\n"
        "count(Path(sys.argv[1]), 25)\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, uci.config], cwd=Path(__file__).parents[2])
        for _ in range(3)
    ]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    assert uci("get", "test.a.count") == b"75\n"


def count(config: Path, times: int) -> None:
    """Adds 1, as often as told."""
    store = TextUciStore(config_dir=config, override_dir=Path("/none"))
    while times:
        package, content_hash = store.load_with_hash("test")
        number = int(str(package.sections[0].options[0].value)) + 1
        edited = set_value(stage(package), "test.a.count", str(number)).package
        with contextlib.suppress(ConflictError):
            store.commit(edited, expected=content_hash)
            times -= 1


def test_commits_of_uci_meanwhile_are_never_lost(uci: RealUci) -> None:
    """`uci` lets go of its lock shortly before it renames, and may hold that of a file that we replaced."""
    (uci.config / "test").write_text("config c 'a'\n\toption count '0'\n")
    store = TextUciStore(config_dir=uci.config, override_dir=Path("/none"))
    stop = threading.Event()
    committed = 0
    ours_lost = []

    def write_often() -> None:
        nonlocal committed
        while not stop.is_set():
            package, content_hash = store.load_with_hash("test")
            if committed and package.sections[0].get("ours") is None:
                ours_lost.append(committed)
            edited = set_value(stage(package), "test.a.ours", str(committed)).package
            with contextlib.suppress(ConflictError):
                store.commit(edited, expected=content_hash)
                committed += 1

    thread = threading.Thread(target=write_often)
    thread.start()
    lost = []
    try:
        for number in range(1, 150):
            uci("set", f"test.a.count={number}")
            uci("commit", "test")
            if uci("get", "test.a.count") != b"%d\n" % number:
                lost.append(number)
    finally:
        stop.set()
        thread.join(10)
    assert committed > 10
    assert lost == []
    assert ours_lost == []
