# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogues of the pages against the texts that there are, and as LuCI reads them."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
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


@functools.cache
def _loose(text: str) -> re.Pattern[str]:
    """What a text of the agent can become: what varies in it may be a whole end of the sentence."""
    return re.compile(".*".join(map(re.escape, text.split("%s"))), re.DOTALL)


def test_the_agent_says_each_sentence_that_the_pages_look_for() -> None:
    said = _texts_of_agent()
    loose = [_loose(text) for text in said if "%s" in text and len(text.replace("%s", "")) >= 10]
    # sought by their words: there are thousands of each
    by_word: dict[str, set[str]] = {}
    for text in said:
        for word in re.findall(r"[A-Za-z]+", text):
            by_word.setdefault(word, set()).add(text)
    # others say the words of `dockerwords`
    for text in (text for place, text, _ in made._sentences() if place != "dockerwords.js"):
        wanted = re.compile(".+".join(map(re.escape, re.sub("^%s ?| ?%s$", "", text).split("%s"))))
        words = re.findall(r"[A-Za-z]+", text.replace("%s", " "))
        found = min((by_word.get(word, set()) for word in words), key=len, default=said)
        assert any(map(wanted.search, found)) or any(one.fullmatch(text) for one in loose), text


# where no text is for a page: `agent/...`, by the beginning of the path
NOT_FOR_PAGES = {
    "cli/": "the command line",
    "convert/": "see test_the_pages_know_each_sentence_of_an_import",
    "__main__.py": "the command line",
    "wire/http_head.py": "of requests that no page makes",
    "wire/blobmsg.py": "of messages that no page makes",
    "wire/ubus_message.py": "of messages that no page makes",
    "wire/record_lines.py": "the log",
    "ubus/": "of the bus; pages see that the agent does not answer",
    "api/access/": "of requests that no page makes, but for what the session may do",
    "api/http/": "of requests that no page makes",
    "api/ubus/": "of calls that no page makes, but for the terminal",
    "api/routes/": "docs/openapi.json, and requests that no page makes",
    "api/engine_calls.py": "docs/openapi.json",
    "api/port.py": "of calls that no page makes",
    "api/rules.py": "docs/openapi.json",
    "api/engine_requests.py": "of requests that no page makes",
    "status/metrics.py": "docs/metrics.md",
    "plan/router/firewall.py": "rules of nftables, but for what is said of blocked interfaces",
    "model/dockerd/table.py": "docs/options.md",
    "schema/validate.py": "see test_the_pages_know_each_mistake_of_settings; what one types",
    "uci/syntax.py": "words of `uci`, which agent/files/config.py explains",
    "uci/edit.py": "of `ucidockd` commands",
}
# single texts that no page shows, or that stay as they are there
KEPT = {
    "what Docker, ssl and `uci` say, by which a failure is known": """
        section of different type overwrites prior section with same name|(OOMKilled: out of memory)
        EOF with unterminated|already in progress|address already in use|invalid command|too many arguments
        invalid character in name field|invalid character in type field|invalid subinterface vlan name
        option/list command found before the first section|failed to find master interface
        parent interface was not found|decoding seccomp profile failed|no log driver named|unknown log opt
        unknown runtime specified|invalid capadd|invalid capdrop|unknown capability|invalid signal
        invalid ulimit type|invalid mount config|invalid volume specification|invalid mode|invalid ip address
        invalid mac address|invalid isolation|bad format for add-host|conflicting options|invalid containerport
        cannot share the host's network namespace|is not in a separate kernel namespace|invalid port
        invalid range format|could not select device driver|unresolvable cdi devices|cdi device injection failed
        wrong version number|record layer failure|protocol version|unsupported protocol|certificate required
        eof occurred|unexpected eof|handshake failure|No module named 'cryptography'|invalid --security-opt
        unknown or invalid runtime name|Loaded image|Loaded image ID|Mounted from|Loading layer
        Pulling fs layer|Pull complete|Already exists|Layer already exists""",
    "names and lists, the same in each language": """
        %s=true or %s=false|(did you mean %s?)
        JSON such as {"text": "{title}"}, or `option format 'text'`|This is a test notice of ucidockd.
        docker login|podman login|nerdctl login|port %s|host port|network host|device %s|devices %s|option %s
        pid host with %s|config %s|config %s '%s'
        `config %s '%s'`|`config %s '%s_%s'`|`config %s 'NAME'`|aux_address %s|line %s
        Bearer %s|depends_on %s:%s|rm -rf %s|rm -rf %s/*|name=true such as containerd-snapshotter=true
        one of|this one|the command
        image archive|image %s|build cache|query parameter|update check|%s from %s|%s in %s|name server""",
    "of calls that no page makes": """
        use only one of path, replace and create|kind: expected one of %s
        files go to /v1/images/load, /v1/builds, /v1/transfers|what: expected one of %s
        source: expected an address that starts with https:// or http://
        remote: expected an address that starts with https://, http:// or git://
        auth: expected an object with username, password or token, and serveraddress
        all: applies to images, volumes and build only|%s is not a socket of ours; remove it|an id or name is %s
        query %s: control characters and more than %s characters are not allowed|query %s: expected 1 or 0
        env: expected a list of NAME=value|command: expected a list of at least one word
        grep: expected a text of at most %s characters|container: expected a name or an id
        containers: expected a list of names or ids|arguments: expected a list of words
        the group of all|the engine answered %s instead of opening a stream
        offset %s is not in %s to %s|unknown %s %s; use %s|no id|`file`: expected an absolute path
        containers: expected from 1 to %s names|this stream takes no input|this stream has no window
        path: expected a path in the volume, without `..`|%s belongs to another user; remove it""",
    "of a part that this agent lacks: then the page lacks it too": """
        this agent measures no load|this agent sends no notices|this agent makes no certificates
        this agent does not ask registries""",
    "halves of sentences that the pages have whole": """
        has options of its driver|(there are: %s)|for %s|the archives of %s are where its command puts them
        until its section changes or `ucidockd update` is run|(%s s if it ignores its stop signal)
        requires a login, or has no such image|refuses the login of `config auth`|and `option name '%s'`
        %s %s (its authorization server answers %s)|%s (did you mean %ss?)|`aux_address %s` of the network
        a %s of %s is in progress|grace or remove_volumes|(health: starting)|%s: correct `option parent`
        only a running agent saves and restores data: start it|restart, %s: %s|add a serial number (%s)
        the parent interface %s does not exist on this machine|is kept by %s|%s sets its options|, at most %s
        . `ucidockd prune --images unused` removes images that nothing needs""",
    "for the log, or about a defect": """
        %s (%s more times since it was told)|another agent is running (%s is locked)|ucidockd: %s
        no executor for %s|a child that was not waited for is not there|no configuration that we would write
        the engine forgets a MAC address in a reconnect|a section that frees its image first has no data moved
        putting network %s back: %s|pass failed|update check failed|something unknown|the agent is ending
        thread is inactive|the control socket cannot be served|a raw stream broke: %s|broken off
        something is still in progress: the next start continues it|no ubus message: %s|nothing was cleaned up: %s
        version %s, expected %s|no longer: %s|dockerd did not confirm live-restore: containers %s|may keep running
        the receiver takes nothing|it is not an array|something follows the array|neither , nor ] at %s
        ip6tables switches on experimental features: dockerd %s requires them|ubus failed|no %s
        network.interface dump: unexpected answer|it would be read as something else|the connection is closed
        the engine sends interim responses without end|the engine's answer has no head|a line is not an object
        the answer is longer than %s bytes|a line is longer than %s bytes|it is nested too deeply|ends with %s
        the engine sent no JSON object: %s|the engine sent a line longer than %s bytes|the engine sent no JSON: %s
        no frame header: %s|the engine|cannot look at image %s: %s|the engine's list lacks %s, which is there
        no firewall zones: %s|%s cannot be pulled now, so nothing is removed: %s
        pyuci does not load: %s|ubus: %s %s: no answer|which is not managed by ucidockd|%s %s does not work: %s""",
    "of a plan, which pages put in words by what kind of step it is (`effects.js`)": """
        in place|about %s s down%s|meanwhile %s cannot use it|retry in %s s|replaces the container, %s; its volumes stay
        replaces the container, which does not run; its volumes stay|restarts the container, %s%s|no restart
        connects it again, its process keeps running; the network is away for about 1 s|nothing to do
        reload (SIGHUP), no container stops: %s|reload (SIGHUP), no container stops|once no operation is in progress""",
}
_LIST = re.compile(
    r"(?!.*\b(?:the|is|not|a|of|to|no|in|and|for|by|it)\b)[\w.-]+(?:\s+[\w.-]+){3,}", re.DOTALL
)
_LOGS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def _shown_texts(tree: ast.AST) -> Iterator[str]:
    """All texts but docstrings, what goes to the log, and patterns."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if (name.startswith("logger.") and name[7:] in _LOGS) or name == "re.compile":
                skipped |= {id(each) for each in ast.walk(node)}
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values if isinstance(part, ast.Constant)}
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            skipped |= {id(each) for each in ast.walk(node.format_spec)}
    for node in ast.walk(tree):
        if id(node) not in skipped and isinstance(node, ast.JoinedStr | ast.Constant):
            yield from _texts_of(node)


def test_the_pages_know_each_sentence_of_the_agent() -> None:
    """Whatever the agent may put into a status, a history, a job, a plan or an error: a new one is translated, or stands
    above with the reason why it is not.
    """
    texts = {text for _, text, _ in made._sentences()} | {one.single for one in WANTED}
    # `%s and %s` and the like say too little to translate a sentence
    known = {text for text in texts if len(re.findall("[A-Za-z]", text.replace("%s", ""))) > 3}
    kept = {
        text.strip() for texts in KEPT.values() for line in texts.splitlines() for text in line.split("|")
    }
    # sought by their longest word first: there are thousands of each
    by_word: dict[str, list[re.Pattern[str]]] = {}
    for template in known:
        pattern = re.compile(".+".join(map(re.escape, template.split("%s"))), re.DOTALL)
        by_word.setdefault(max(re.findall(r"[A-Za-z]+", template.replace("%s", " ")), key=len), []).append(
            pattern
        )

    def is_known(text: str) -> bool:
        bare = text.strip(" :;\n")
        found = [one for word in set(re.findall(r"[A-Za-z]+", bare)) for one in by_word.get(word, ())]
        return bare in kept or any(
            one.fullmatch(start + bare) for one in found for start in ("", "%s: ", "%s; ")
        )

    left = []
    for path in sorted((PROJECT / "agent").rglob("*.py")):
        name = str(path.relative_to(PROJECT / "agent"))
        if name.startswith(tuple(NOT_FOR_PAGES)):
            continue
        for text in _shown_texts(ast.parse(path.read_text())):
            if not re.search(r"[a-z]{2,}[:,)]? [a-z%`(]", text) or _LIST.fullmatch(text) or is_known(text):
                continue
            # what follows a mistake, and two sentences in one, are found by themselves; what varies may be nothing
            parts = [part for half in text.split(", expected ") for part in half.split("; ")]
            bare = [re.sub(r"^%s(?:: )?|(?<=[a-z])%s$", "", part) for part in parts]
            if not all(
                is_known(part) for part in bare if re.search(r"[a-z]{2,}[:,)]? [a-z%(]", part)
            ) and not any(
                _loose(text.strip(". ")).fullmatch(template)
                for template in known
                if text[:2] != "%s" or template[:2] == "%s"
            ):
                left.append(f"{name}: {text}")
    assert left == []


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
    assert not {one.single for one in WANTED} & {"Edit", "Follow", "Image", "Log", "MTU", "Push", "none"}


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
