# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogues of the pages against the texts that there are, and as LuCI reads them."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import struct
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agent.plan import operations

PROJECT = Path(__file__).parents[2]


def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("catalogues", PROJECT / "luci/i18n/catalogues.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    sys.modules["catalogues"] = made
    spec.loader.exec_module(made)
    return made


made: Any = module()
WANTED = made.messages()
LANGUAGES = ["de", "es", "pt", "ru", "zh_Hans"]


def texts_of(language: str) -> dict[tuple[str, str], tuple[str, ...]]:
    found = made.parse((PROJECT / f"luci/po/{language}/ucidockd.po").read_text())
    return {(one.single, one.plural): one.texts for one in found if one.single}


def test_the_template_has_every_text_of_the_pages() -> None:
    """Those of the schemas as well, but a word changed there is no reason to fail."""
    kept = {(one.single, one.plural) for one in made.parse(made.TEMPLATE.read_text())}
    of_pages = {
        (one.single, one.plural) for one in WANTED if any(".schema.json" not in place for place in one.places)
    }
    assert ("Add container", "") in of_pages
    assert of_pages - kept == set(), "run `make pot`"


def test_the_scanner_of_luci_sees_the_texts_of_the_schemas() -> None:
    literals = set(re.findall(r"^_\('(.*)'\);$", made.SCHEMA_TEXTS.read_text(), re.MULTILINE))
    assert {text.replace("'", "\\'") for text in ("Memory limit", "Who runs dockerd")} <= literals


def test_the_texts_of_every_schema_are_there() -> None:
    """Those of a section type that is newer than the catalogues too, as backups were."""
    found = {one.single for one in WANTED}
    for path in sorted((PROJECT / "schemas").glob("*.schema.json")):
        options = json.loads(path.read_text())["properties"].values()
        assert {option["title"] for option in options} <= found, path.name


def _texts_of(node: ast.AST) -> set[str]:
    """The texts below a node, with `%s` for what an f-string fills in."""
    found, parts = set(), set()
    for each in ast.walk(node):
        if isinstance(each, ast.JoinedStr):
            found.add("".join(p.value if isinstance(p, ast.Constant) else "%s" for p in each.values))
            parts |= {id(part) for part in each.values}
        elif isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in parts:
            found.add(each.value)
    return found


def _texts_of_agent() -> set[str]:
    """All texts in the agent's source."""
    trees = (ast.parse(path.read_text()) for path in sorted((PROJECT / "agent").rglob("*.py")))
    return set().union(*map(_texts_of, trees))


# what an import says only where it can read further files, which a page cannot give it
OF_FILES = {
    "%s has no services",
    "it is in `list env`, because sections keep quotes and comments of files",
    "more than %s files are included",
    "the file demands it",
    "the quote opened for %s is never closed",
    "this is not a variable",
    "compose refuses the file: %s",
    "expected NAME=value",
    "values are taken as they stand",
}
# who tells a text, and which of its arguments is one
TELLERS = {
    "changed": 1,
    "left_out": 1,
    "unknown": 1,
    "note": 2,
    "put": 3,
    "_put": 3,
    "ConfigError": 0,
    "ValueError": 0,
    "_no": 1,
    "_without": 0,
}


def _told(call: ast.AST) -> list[ast.AST]:
    if not isinstance(call, ast.Call):
        return []
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    at = TELLERS.get(name, len(call.args))
    return [
        *call.args[at : at + 1],
        *(word.value for word in call.keywords if word.arg in ("changed", "text")),
    ]


def _assigned(node: ast.AST, names: set[str]) -> bool:
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return isinstance(node, ast.Assign | ast.AugAssign) and any(
        isinstance(each, ast.Name) and each.id in names for target in targets for each in ast.walk(target)
    )


def _sentences_of_import() -> set[str]:
    """What an import says of a flag or key, each part of it by itself: a text that goes to one of TELLERS, also by a
    variable of the same function, or is returned as a reason.
    """
    found: set[str] = set()
    for name in ("command_line", "compose", "compose_file", "compose_service", "conversion", "run_line"):
        tree = ast.parse((PROJECT / f"agent/convert/{name}.py").read_text())
        for scope in (tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))):
            nodes = list(ast.walk(scope))
            told = [argument for node in nodes for argument in _told(node)]
            names = {each.id for node in told for each in ast.walk(node) if isinstance(each, ast.Name)}
            if getattr(scope, "name", "") == "mount_entry":
                names.add("lost")
                told += [node for node in nodes if isinstance(node, ast.Return)]
                told += [
                    node
                    for node in nodes
                    if isinstance(node, ast.Call) and ast.unparse(node.func) == "lost.append"
                ]
            # of the module only its constants: a name in one function is another in the next
            assigned = tree.body if scope is tree else nodes
            told += [
                node.value
                for node in assigned
                if isinstance(node, ast.Assign | ast.AugAssign) and _assigned(node, names)
            ]
            found |= set().union(*map(_texts_of, told))
    parts = {part for text in found for part in text.strip().split("; ")}
    # the place of a mistake before it, and a hint after it, are sentences of their own
    bare = {
        re.sub(r"^(line %s: |services\.%s\.extends: |%s(?=[a-z]))|(?<=[a-z])%s$", "", part) for part in parts
    }
    return {part for part in bare if re.match(r"(%s:? |`.*` )?[a-z].* .*[^:]$", part)}


def test_the_pages_know_each_sentence_of_an_import() -> None:
    known = [text for _, text, _ in made._sentences()]
    wanted = [re.compile(".+".join(map(re.escape, text.split("%s"))), re.DOTALL) for text in known]
    said = _sentences_of_import()
    assert {"it names no image", "docker has removed it", "%s does not resolve"} <= said
    assert sorted(text for text in said - OF_FILES if not any(one.fullmatch(text) for one in wanted)) == []


# who reports a mistake in the settings: the argument that says what is wrong
REPORTERS = {
    "report": 0,
    "warn": 0,
    "Mistake": 0,
    "Issue": 0,
    "QuantityError": 0,
    "NoticeError": 0,
    "ConfigError": 0,
    "GateError": 0,
    "CutOff": 0,
}
WITH_MISTAKES = {
    "apply/steps": {"_judge"},
    "plan/router/reach": None,
    "runtime/router_integration": {"_show_reach"},
    "schema/validate": None,
    "uci/crosscheck": None,
    "uci/decode": None,
    "uci/decode_container": None,
    "uci/decode_daemon": None,
    "uci/decode_network": None,
    "uci/reader": None,
    "notices/channels": None,
    "notices/notifier": {"test"},
    "tls/certificates": {"_check_client", "_no_ca", "_signer"},
}


WORD_TABLES = {"_TLS_WORDS", "_MQTT_REFUSED"}


def _mistakes_of_settings() -> set[str]:
    """What is said of a section's mistake, a notice that failed and a client's certificate; of a text with `expected` in
    it, both halves.
    """
    found: set[str] = set()
    for name, functions in WITH_MISTAKES.items():
        tree = ast.parse((PROJECT / f"agent/{name}.py").read_text())
        for scope in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            if functions is not None and scope.name not in functions:
                continue
            nodes = list(ast.walk(scope))
            calls = [node for node in nodes if isinstance(node, ast.Call)]
            told = [
                argument
                for call in calls
                if (at := REPORTERS.get(getattr(call.func, "attr", getattr(call.func, "id", "")))) is not None
                for argument in (
                    *call.args[at : at + 1],
                    *(word.value for word in call.keywords if word.arg in ("message", "expected", "wrong")),
                )
            ]
            if scope.name in {"_words", "_tls_words", "_wrong", "_wish"}:
                told += [node for node in nodes if isinstance(node, ast.Return)]
            names = {each.id for node in told for each in ast.walk(node) if isinstance(each, ast.Name)}
            told += [node.value for node in nodes if isinstance(node, ast.Assign) and _assigned(node, names)]
            found |= set().union(*map(_texts_of, told))
        # what other programs say, by what it means
        tables = (node for node in tree.body if isinstance(node, ast.Assign) and _assigned(node, WORD_TABLES))
        for table in tables:
            values = table.value.values if isinstance(table.value, ast.Dict) else [table.value]
            found |= set().union(*map(_texts_of, values))
    halves = {half for text in found for half in text.split(", expected ")}
    bare = {
        re.sub(r"\{\w+(?:!r)?\}", "%s", re.sub(r"^%s: |(?<=[a-z])%s$", "", half)).strip() for half in halves
    }
    return {text for text in bare if re.search(r"[a-z]{2,} (?!%s$)[a-z%`]|^is |^[a-z]+ %s ", text)}


# what one types, and what no page can ask for
NOT_WORDS = {
    "config %s '%s'",
    "network host",
    "days is %s",
    "one of",
    "timed out",
    "(OOMKilled: out of memory)",
}


def test_the_pages_know_each_mistake_of_settings() -> None:
    known = [text for _, text, _ in made._sentences()]
    wanted = [re.compile(".+".join(map(re.escape, text.split("%s"))), re.DOTALL) for text in known]
    said = _mistakes_of_settings() - NOT_WORDS
    assert {
        "is too small",
        "each network once",
        "the connection was refused",
        "%s closed the connection",
    } <= said

    def is_known(text: str) -> bool:
        return any(one.fullmatch(start + text) for one in wanted for start in ("", "%s: "))

    # two sentences in one are found by each
    parts = {part for text in said if not is_known(text) for part in text.split("; ")} - {"%s"}
    assert sorted(part for part in parts if not is_known(part)) == []


def test_the_agent_says_each_sentence_that_the_pages_look_for() -> None:
    said = _texts_of_agent()
    for _, text, _ in made._sentences():
        wanted = re.compile(".+".join(map(re.escape, text.split("%s"))))
        assert any(map(wanted.search, said)), text


def test_what_stands_in_a_sentence_of_a_containers_state_is_known() -> None:
    """`it is exited and should be running`: the engine's word for each state."""
    wanted = {"created", "dead", "exited", "paused", "restarting", "running"}
    assert wanted <= {text for _, text, _ in made._sentences()}
    assert all(texts_of(language)[word, ""][0] not in ("", word) for language in LANGUAGES for word in wanted)


def test_every_verb_of_a_plan_has_words() -> None:
    text = (PROJECT / "luci/htdocs/luci-static/resources/ucidockd/sentences.js").read_text()
    known = set(re.findall(r"(\w+): \(\) => _\(", text))
    kinds = [kind for kind in vars(operations).values() if isinstance(kind, type)]
    made_of = {
        kind(**{field.name: "" for field in fields(kind)}).verb
        for kind in kinds
        if issubclass(kind, operations.Operation)
        and kind not in (operations.Operation, operations.ChangeDaemon)
    }
    assert made_of | {"start", "reload", "restart"} <= known


def test_no_text_is_one_that_luci_translates_in_another_sense() -> None:
    """LuCI's own catalogue wins: there `Image` is firmware, `Push` a button, `Follow` an interface; `MTU` has markup; and
    `Edit` is a noun in German.
    """
    assert not {one.single for one in WANTED} & {"Edit", "Follow", "Image", "Log", "MTU", "Push"}


def test_a_text_with_a_context_is_kept_with_it() -> None:
    """LuCI looks for context, U+0001, text."""
    one = made.Message("a container\1Edit", texts=("Bearbeiten",))
    text = made.formatted([one], made.header("de"))
    assert '\nmsgctxt "a container"\nmsgid "Edit"\nmsgstr "Bearbeiten"\n' in text
    found = [each for each in made.parse(text) if each.single]
    assert [(each.single, each.texts) for each in found] == [("a container\1Edit", ("Bearbeiten",))]
    assert struct.pack(">I", made.sfh(b"a container\1Edit")) in made.lmo(found)


def test_no_text_has_blanks_that_luci_takes_away() -> None:
    keys = [text for one in WANTED for text in (one.single, one.plural)]
    assert [text for text in keys if text != " ".join(text.split())] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_catalogue_is_complete_and_keeps_what_is_filled_in(language: str) -> None:
    """A text that has just been added may wait for its translation: one in twenty, no more."""
    found = texts_of(language)
    wanted = {(one.single, one.plural) for one in WANTED}
    missing = sorted(key for key in wanted if not all(found.get(key, ("",))))
    assert len(missing) <= len(wanted) // 20, missing
    for (single, plural), texts in found.items():
        for text in filter(None, texts):
            assert holes(text) in [holes(one) for one in (single, plural) if one], (single, text)
            assert text == text.strip(), text
    assert f"# {made.REVIEW}" in (PROJECT / f"luci/po/{language}/ucidockd.po").read_text().splitlines()[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_catalogue_has_every_form_of_a_plural(language: str) -> None:
    forms = int(re.findall(r"nplurals=(\d)", made.PLURALS[language])[0])
    for (_, plural), texts in texts_of(language).items():
        assert not plural or not any(texts) or len(texts) == forms, (plural, texts)


def holes(text: str) -> list[str]:
    return re.findall(r"%(?:\.\d)?[sdf]", text)


@pytest.mark.parametrize(
    ("key", "number"),
    [
        ("Name", "d785d68e"),
        ("Save & Apply", "610beed4"),
        ("%d set\2" + "0", "84c2f449"),
        ("größer", "70588f0e"),
        ("名前", "a43faddd"),
    ],
)
def test_a_key_has_the_number_that_luci_looks_for(key: str, number: str) -> None:
    """As `sfh` of LuCI's cbi.js gives it."""
    assert made.sfh(key.encode()) == int(number, 16)


def test_a_built_catalogue_gives_each_text_by_its_number(tmp_path: Path) -> None:
    source, target = tmp_path / "ucidockd.po", tmp_path / "ucidockd.de.lmo"
    one = made.Message("Name", texts=("Bezeichnung",))
    many = made.Message("%d set", "%d sets", texts=("%d gesetzt", "%d sind gesetzt"))
    source.write_text(made.formatted([many, one, made.Message("Image")], made.header("de")))
    command = [sys.executable, PROJECT / "luci/i18n/catalogues.py", "lmo"]
    subprocess.run([*command, source, target], check=True)
    data = target.read_bytes()
    (start,) = struct.unpack(">I", data[-4:])
    rows = [struct.unpack_from(">4I", data, at) for at in range(start, len(data) - 4, 16)]
    found = {row[0]: data[row[2] : row[2] + row[3]].decode() for row in rows}
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert found == {
        0: made.PLURALS["de"],
        made.sfh(b"Name"): "Bezeichnung",
        made.sfh(b"%d set\0020"): "%d gesetzt",
        made.sfh(b"%d set\0021"): "%d sind gesetzt",
    }
