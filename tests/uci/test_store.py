# SPDX-License-Identifier: GPL-2.0-or-later
"""What both stores promise, on our own syntax and on the real libuci."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import ConfigError, ConflictError, StorageError
from agent.files import uci_store
from agent.files.uci_store import PyuciStore, TextUciStore, UciMissing, UciUnwritable
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
from tests.support.real_uci import COMMAND, RealUci, why_not

CORPUS = Path(__file__).parents[1] / "data" / "uci-corpus" / "read.jsonl"
CASES = [json.loads(line) for line in CORPUS.read_text().splitlines()]

TEXT = """
config container 'web'
	list port '80:80'
	list port '81:81'
	list env 'only'
	list label ''
	option image 'nginx'

config container
	option name 'a'
"""


@pytest.fixture(params=[TextUciStore, PyuciStore])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TextUciStore:
    if request.param is PyuciStore and (reason := why_not()):
        pytest.skip(reason)
    (tmp_path / "config").mkdir(exist_ok=True)
    made = request.param(config_dir=tmp_path / "config", override_dir=tmp_path / "override")
    assert isinstance(made, TextUciStore)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """/etc/config/test, with TEXT."""
    path = tmp_path / "config" / "test"
    path.parent.mkdir(exist_ok=True)
    path.write_text(TEXT)
    return path


def edited(package: Package, value: str = "redis") -> Package:
    """As `uci set test.web.image=VALUE` edits it."""
    return set_value(stage(package), "test.web.image", value).package


def test_values_types_names_and_lines(store: TextUciStore, file: Path) -> None:
    web, other = store.load("test").sections
    assert (web.type, web.name, web.anonymous, web.line) == ("container", "web", False, 2)
    assert web.options == (
        Option(name="port", value=("80:80", "81:81"), lines=(3, 4)),
        Option(name="env", value=("only",), lines=(5,)),
        Option(name="label", value=("",), lines=(6,)),
        Option(name="image", value="nginx", lines=(7,)),
    )
    assert (other.name, other.anonymous, other.line) == (generated_name(2, "container"), True, 9)


def in_any_order(text: str) -> list[str]:
    """older libuci moves an option that is set again to the end of its section; newer ones leave it."""
    return sorted(text.split("\n"))


def test_reads_every_file_of_the_corpus_as_the_real_uci_did(store: TextUciStore, file: Path) -> None:
    for case in CASES:
        file.write_bytes(case["input"].encode())
        if "error" in case:
            with pytest.raises(UciSyntaxError) as caught:
                store.load("test")
            assert str(caught.value) == case["error"]
            assert caught.value.path == str(file)
            assert caught.value.line >= 1
        else:
            package = store.load("test")
            assert in_any_order(format_export(package)) == in_any_order(case["export"])
            assert in_any_order(format_show(package)) == in_any_order(case["show"])
            if type(store) is TextUciStore:
                assert format_export(package) == case["export"]


def test_bytes_that_are_not_utf8_are_kept(store: TextUciStore, file: Path, uci: RealUci) -> None:
    odd = bytes(set(range(1, 256)) - set(b"'\n"))
    file.write_bytes(b"config c 'a'\n\toption x '" + odd + b"'\n\tlist y '\xff'\n\tlist y '\xc3\xa9'\n")
    options = store.load("test").sections[0].options
    values = [options[0].value, *options[1].value]
    assert [value.encode("utf-8", "surrogateescape") for value in values] == [odd, b"\xff", b"\xc3\xa9"]
    before = uci("export", "test")
    store.commit(store.load("test"))
    assert uci("export", "test") == before
    assert odd in before


def test_a_zero_byte_does_what_it_does_to_uci(store: TextUciStore, file: Path, uci: RealUci) -> None:
    file.write_bytes(b"config c 'a'\n\toption x 'b' \0 junk\n\n\toption y 'd'\n\0\nconfig d 'e'\n")
    assert format_export(store.load("test")).encode() == uci("export", "test")
    file.write_bytes(b"config c 'a'\n\toption x 'b'\0 junk\n\toption y 'd'\n")
    with pytest.raises(UciSyntaxError) as caught:
        store.load("test")
    assert uci.run("export", "test").stderr.decode().endswith(f"uci: {caught.value}\n")


def test_of_sections_with_one_name_each_keeps_its_values(
    store: TextUciStore, file: Path, uci: RealUci
) -> None:
    second = generated_name(2, "c")
    file.write_text(f"config c '{second}'\n\toption x 'named'\n\nconfig c\n\toption x 'anonymous'\n")
    package = store.load("test")
    assert [section.get("x") and section.options[0].value for section in package.sections] == [
        "named",
        "anonymous",
    ]
    assert format_show(package).encode() == uci("-X", "show", "test")


@pytest.mark.parametrize("kind", ["nothing", "folder", "pipe", "dangling"])
def test_what_is_no_file_is_missing(store: TextUciStore, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config" / "test"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    with pytest.raises(UciMissing, match=str(path)):
        store.load("test")
    assert store.content_hash("test") == ""


@pytest.mark.parametrize("name", ["", "../test", "a.b", "/etc/passwd", "a b", "test\n"])
def test_a_name_that_is_none_is_refused(store: TextUciStore, name: str) -> None:
    with pytest.raises(ConfigError, match="package name"):
        store.load(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_an_error_that_names_it(store: TextUciStore, file: Path) -> None:
    file.chmod(0)
    with pytest.raises(ConfigError, match=f"{file} cannot be read: Permission denied"):
        store.load("test")


def test_the_hash_is_of_what_was_read(store: TextUciStore, file: Path) -> None:
    package, content_hash = store.load_with_hash("test")
    assert package == store.load("test")
    assert content_hash == store.content_hash("test")
    file.write_text(TEXT + "\n")
    assert store.content_hash("test") != content_hash


def test_staged_changes_are_neither_seen_nor_applied_nor_lost(
    store: TextUciStore, file: Path, uci: RealUci
) -> None:
    committed = store.load("test")
    uci("set", "test.web.image=staged")
    uci("add_list", "test.web.port=82:82")
    uci("delete", "test.@container[1]")
    assert store.load("test") == committed
    staged = uci("changes", "test")
    assert b"staged" in staged

    store.commit(edited(committed, "ours"))
    assert "'ours'" in file.read_text()
    assert "82:82" not in file.read_text()
    assert uci("changes", "test") == staged

    uci("commit", "test")
    assert "'staged'" in file.read_text()
    assert "82:82" in file.read_text()
    assert len(store.load("test").sections) == 1


@pytest.fixture
def usual_save_directory() -> Iterator[Path]:
    """/tmp/.uci, libuci's own choice; made for the test where it is not there."""
    made = Path("/tmp/.uci")
    if made.exists():
        yield made
        return
    made.mkdir(mode=0o700)
    yield made
    made.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a /tmp/.uci of its own")
def test_changes_staged_where_libuci_looks_by_itself_are_not_seen(
    store: TextUciStore, file: Path, uci: RealUci, usual_save_directory: Path
) -> None:
    """/tmp/.uci counts when nobody names another place; the process has one of its own."""
    file.write_text("config c 'web'\n\toption image 'committed'\n")
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        f"from agent.files.uci_store import {type(store).__name__} as Store\n"
        "store = Store(config_dir=Path(sys.argv[1]), override_dir=Path('/none'))\n"
        "print(store.load('test').sections[0].options[0].value)\n"
    )
    script = f"""
        mount -t tmpfs none {usual_save_directory}
        echo "test.web.image='staged'" >{usual_save_directory}/test
        {COMMAND} -c {file.parent} get test.web.image && exec "$@"
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", sys.executable, "-c", program, file.parent],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("staged\ncommitted\n", "")


def test_commit_writes_what_uci_commit_writes(store: TextUciStore, file: Path, uci: RealUci) -> None:
    store.commit(edited(store.load("test")))
    ours = file.read_bytes()
    file.write_text(TEXT)
    uci("set", "test.web.image=redis")
    uci("commit", "test")
    assert ours == file.read_bytes()


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_commit_keeps_the_mode_as_uci_commit_does(
    store: TextUciStore, file: Path, uci: RealUci, mode: int
) -> None:
    file.chmod(mode)
    store.commit(edited(store.load("test")))
    assert file.stat().st_mode & 0o7777 == mode
    uci("set", "test.web.image=third")
    uci("commit", "test")
    assert file.stat().st_mode & 0o7777 == mode


def test_commit_follows_a_symlink_as_uci_commit_does(
    store: TextUciStore, file: Path, uci: RealUci, tmp_path: Path
) -> None:
    target = tmp_path / "config" / "real"
    file.rename(target)
    file.symlink_to("real")
    store.commit(edited(store.load("test")))
    assert file.is_symlink()
    assert "'redis'" in target.read_text()
    uci("set", "test.web.image=third")
    uci("commit", "test")
    assert file.is_symlink()
    assert "'third'" in target.read_text()


def test_commit_makes_a_new_file_that_is_roots_alone(store: TextUciStore, tmp_path: Path) -> None:
    made = Package(name="new", sections=(Section(type="c", name="a"),))
    store.commit(made, expected="")
    path = tmp_path / "config" / "new"
    assert path.read_text() == "\nconfig c 'a'\n\n"
    assert path.stat().st_mode & 0o7777 == 0o600
    with pytest.raises(ConflictError):
        store.commit(made, expected="")


def test_commit_is_refused_when_the_file_has_changed(store: TextUciStore, file: Path, uci: RealUci) -> None:
    package, before = store.load_with_hash("test")
    uci("set", "test.web.image=theirs")
    uci("commit", "test")
    theirs = file.read_bytes()
    with pytest.raises(ConflictError, match=str(file)):
        store.commit(edited(package), expected=before)
    assert file.read_bytes() == theirs
    package, before = store.load_with_hash("test")
    store.commit(edited(package), expected=before)
    assert "'redis'" in file.read_text()


@pytest.mark.parametrize(
    "section",
    [
        Section(type="a#b", name="x"),
        Section(type="c", name="bad name"),
        Section(type="", name="x"),
        Section(type="c", name="x", options=(Option(name="a-b", value="1"),)),
        Section(type="c", name="x", options=(Option(name="a", value="one\0two"),)),
        Section(type="c", name="x", options=(Option(name="a", value="\ud800"),)),
        Section(type="c", name="x", options=(Option(name="a", value=()),)),
        Section(type="c", name="web"),
    ],
)
def test_commit_refuses_what_would_be_read_as_something_else(
    store: TextUciStore, file: Path, section: Section
) -> None:
    package = store.load("test")
    with pytest.raises(UciUnwritable, match="test cannot be written"):
        store.commit(replace(package, sections=(*package.sections, section)))
    assert file.read_text() == TEXT


@contextmanager
def disk_is_full_after(size: int) -> Iterator[None]:
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("name", ["test", "new"])
def test_a_commit_that_fails_changes_nothing_and_leaves_no_litter(
    store: TextUciStore, file: Path, name: str
) -> None:
    package = replace(store.load("test"), name=name)
    with disk_is_full_after(20), pytest.raises(StorageError, match="cannot be written: File too large"):
        store.commit(package)
    assert file.read_text() == TEXT
    assert list(file.parent.iterdir()) == [file]


def test_commit_waits_for_whoever_holds_the_lock_and_then_sees_the_change(
    store: TextUciStore, file: Path
) -> None:
    """As `uci commit` does it: lock the file, rename another one over it, let go."""
    package, before = store.load_with_hash("test")
    raised: list[BaseException] = []

    def commit() -> None:
        try:
            store.commit(edited(package), expected=before)
        except ConflictError as exc:
            raised.append(exc)

    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=commit)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert file.read_text() == TEXT
        theirs = file.parent / ".test.uci-theirs"
        theirs.write_text("config c 'theirs'\n")
        theirs.rename(file)
    thread.join(10)
    assert not thread.is_alive()
    assert len(raised) == 1
    assert file.read_text() == "config c 'theirs'\n"


def test_an_override_counts_and_is_written(store: TextUciStore, file: Path, tmp_path: Path) -> None:
    override = tmp_path / "override" / "test"
    override.parent.mkdir()
    override.write_text("config container 'web'\n\toption image 'other'\n")
    assert store.source_path("test") == override
    package = store.load("test")
    assert package.sections[0].options[0].value == "other"
    store.commit(edited(package))
    assert "'redis'" in override.read_text()
    assert file.read_text() == TEXT
    override.unlink()
    assert store.source_path("test") == file
    assert "'nginx'" in format_export(store.load("test"))


def test_values_are_those_of_libuci(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A libuci that reads otherwise than we do is believed about values, and refused about sections."""
    if reason := why_not():
        pytest.skip(reason)
    store = PyuciStore(config_dir=file.parent, override_dir=Path("/none"))
    real = uci_store.read_with_libuci

    def other_values(raw: bytes) -> uci_store.Values:
        return real(raw.replace(b"nginx", b"redis"))

    monkeypatch.setattr(uci_store, "read_with_libuci", other_values)
    assert store.load("test").sections[0].get("image") == Option(name="image", value="redis", lines=(7,))
    monkeypatch.setattr(uci_store, "read_with_libuci", lambda raw: real(raw + b"\nconfig c more\n"))
    with pytest.raises(uci_store.LibuciError, match=f"{file}: .* same sections: more"):
        store.load("test")


READ_OFTEN = """
import os, sys
from pathlib import Path
from agent.files import uci_store

raw = Path(sys.argv[1]).read_bytes()

def counts():
    return int(Path("/proc/self/statm").read_text().split()[1]), len(os.listdir("/proc/self/fd"))

def read_often(times):
    for _ in range(times):
        uci_store.read_with_libuci(raw)

read_often(3000)  # until the heap has the size that it keeps
before = counts()
read_often(2000)
after = counts()
print(after[0] - before[0], after[1] - before[1])
"""


def test_reading_keeps_no_memory_and_no_descriptor(file: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    file.write_text("".join(f"config c s{n}\n\tlist x 'a'\n\tlist x '\xe9'\n" for n in range(20)))
    # a process of its own: in this one other tests' threads still take and give memory
    done = subprocess.run(
        [sys.executable, "-c", READ_OFTEN, file],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    pages, descriptors = map(int, done.stdout.split())
    assert pages < 64
    assert descriptors == 0
