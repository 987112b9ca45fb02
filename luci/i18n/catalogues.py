# SPDX-License-Identifier: GPL-2.0-or-later
"""Translations of the pages (gettext). `make pot` writes the template and brings the catalogues up to date.

`pot`: luci/po/templates/ucidockd.pot with all texts of the pages, the menu, the rights, schemas, conditions and
sentences of the agent; luci/i18n/schemas.js with those of schemas, conditions and sentences as literals, since LuCI's
scanner sees only such; and luci/po/*/ucidockd.po with all texts.
`lmo IN OUT`: a catalogue as LuCI reads it (luci-base: po2lmo.c, lmo.h).
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

LUCI = Path(__file__).parents[1]
PROJECT = LUCI.parent
SCHEMA_TEXTS = LUCI / "i18n/schemas.js"
TEMPLATE = LUCI / "po/templates/ucidockd.pot"
REVIEW = "Not yet reviewed by a native speaker."
PLURALS = {
    "de": "nplurals=2; plural=(n != 1);",
    "es": "nplurals=2; plural=(n != 1);",
    "pt": "nplurals=2; plural=(n != 1);",
    "ru": "nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);",
    "zh_Hans": "nplurals=1; plural=0;",
}
_STRING = r"'((?:[^'\\\n]|\\.)*)'"
_CALL = re.compile(rf"\b(?:_\({_STRING}(?:,\s*{_STRING})?\s*\)|N_\([^,]+,\s*{_STRING},\s*{_STRING}\s*\))")
_TEMPLATES = (
    "sentences.js",
    "importwords.js",
    "mistakes.js",
    "wrongvalues.js",
    "faults.js",
    "causes.js",
    "reasons.js",
    "dockerwords.js",
)
_ENTRY = re.compile(r'^(msgctxt|msgid|msgid_plural|msgstr(?:\[\d\])?) (".*(?:\n".*)*)$', re.MULTILINE)
OF = "\1"  # between a context and its text, as LuCI looks for them


@dataclass
class Message:
    """One text; `plural` is "" for one without, then `texts` has one translation, else one for each form."""

    single: str
    plural: str = ""
    places: list[str] = field(default_factory=list)
    texts: tuple[str, ...] = ()


def main() -> None:
    match sys.argv[1:]:
        case ["pot"]:
            write()
        case ["lmo", source, target]:
            Path(target).write_bytes(lmo(parse(Path(source).read_text())))
        case _:
            raise SystemExit("usage: catalogues.py pot | lmo IN.po OUT.lmo")


def write() -> None:
    """Template, literals and catalogues; a translation whose text is gone goes with it."""
    SCHEMA_TEXTS.write_text(schema_literals())
    wanted = messages()
    TEMPLATE.write_text(formatted(wanted, "Content-Type: text/plain; charset=UTF-8\\n"))
    for path in catalogues():
        known = {(one.single, one.plural): one.texts for one in parse(path.read_text())}
        translated = [
            Message(one.single, one.plural, one.places, known.get((one.single, one.plural), ()))
            for one in wanted
        ]
        path.write_text(formatted(translated, header(path.parent.name), comment=REVIEW))


def catalogues() -> list[Path]:
    return sorted((LUCI / "po").glob("*/ucidockd.po"))


def header(language: str) -> str:
    return f"Language: {language}\\nContent-Type: text/plain; charset=UTF-8\\nPlural-Forms: {PLURALS[language]}\\n"


def messages() -> list[Message]:
    """All texts, in order."""
    found: dict[tuple[str, str], Message] = {}
    for place, single, plural in (*_pages(), *_json_texts(), *_schemas(), *_conditions(), *_sentences()):
        if single:
            message = found.setdefault((single, plural), Message(single, plural))
            if place not in message.places:
                message.places.append(place)
    return [found[key] for key in sorted(found)]


def _pages() -> Iterator[tuple[str, str, str]]:
    for path in [*sorted((LUCI / "htdocs").rglob("*.js")), LUCI / "frame.js"]:
        if path.parent.name == "xterm":
            continue
        for call in _CALL.finditer(path.read_text()):
            single, context, one, many = (re.sub(r"\\(.)", r"\1", text or "") for text in call.groups())
            yield path.name, (context + OF if context else "") + (single or one), many


def _json_texts() -> Iterator[tuple[str, str, str]]:
    for path in sorted((LUCI / "root").rglob("*.json")):
        for node in json.loads(path.read_text()).values():
            yield path.name, node.get("title") or node.get("description") or "", ""


def _schemas() -> Iterator[tuple[str, str, str]]:
    for path in sorted((PROJECT / "schemas").glob("*.schema.json")):
        for option in json.loads(path.read_text())["properties"].values():
            for text in (option["title"], option["description"]):
                yield path.name, text, ""


def _conditions() -> Iterator[tuple[str, str, str]]:
    """What the status says of a condition in words of the agent."""
    # here: a package is built (`lmo`) where the agent is not installed
    from agent.errors import Reason
    from agent.model.dockerd.settings import NotOurs
    from agent.status.conditions import CONDITIONS, words_of

    for row in CONDITIONS.values():
        for text in (row.sentence, row.label, row.advice, *row.advice_for.values()):
            yield "conditions.py", text, ""
    for why in NotOurs:
        yield "settings.py", why, ""
    for reason in get_args(Reason):
        yield "conditions.py", words_of(reason), ""


def _sentences() -> Iterator[tuple[str, str, str]]:
    """Those of the agent that have holes, or are found by no table (`sentences.js`)."""
    for name in _TEMPLATES:
        path = LUCI / "htdocs/luci-static/resources/ucidockd" / name
        rows = re.search(r"const TEMPLATES = \[\n(.*?)\n\];", path.read_text(), re.DOTALL)
        assert rows
        for text in re.findall(rf"^\t{_STRING}", rows[1], re.MULTILINE):
            yield path.name, re.sub(r"\\(.)", r"\1", text), ""


def schema_literals() -> str:
    """JavaScript that nothing loads."""
    texts = sorted({text for _, text, _ in (*_schemas(), *_conditions(), *_sentences()) if text})
    lines = [
        "// SPDX-License-Identifier: GPL-2.0-or-later",
        "// Made by `make pot` for LuCI's scanner: texts of schemas and conditions, taken through a variable.",
        "// Nothing loads it.",
        *("_({});".format("'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'") for text in texts),
    ]
    return "\n".join(lines) + "\n"


def formatted(found: list[Message], head: str, comment: str = "") -> str:
    lines = [f"# {comment}"] if comment else []
    lines += ['msgid ""', f'msgstr "{head}"']
    for one in found:
        *context, single = one.single.split(OF)
        lines += ["", f"#: {' '.join(one.places)}"]
        lines += [*(f"msgctxt {_quoted(each)}" for each in context), f"msgid {_quoted(single)}"]
        if one.plural:
            lines.append(f"msgid_plural {_quoted(one.plural)}")
            texts = one.texts or ("", "")
            lines += [f"msgstr[{index}] {_quoted(text)}" for index, text in enumerate(texts)]
        else:
            lines.append(f"msgstr {_quoted(one.texts[0] if one.texts else '')}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def parse(text: str) -> list[Message]:
    """The messages of a catalogue without its header, which is `Message("", texts=...)`."""
    found: list[Message] = []
    context = ""
    for word, quoted in _ENTRY.findall(text):
        said = "".join(json.loads(line) for line in quoted.split("\n"))
        if word == "msgctxt":
            context = said + OF
        elif word == "msgid":
            found.append(Message(context + said))
            context = ""
        elif word == "msgid_plural":
            found[-1].plural = said
        else:
            found[-1].texts += (said,)
    return found


def lmo(found: list[Message]) -> bytes:
    """Values, each padded to 4 bytes; the index by hash: hash, plural forms, offset, length; where the index begins."""
    data, index = bytearray(), []

    def put(key: int, forms: int, text: str) -> None:
        value = text.encode()
        index.append((key, forms, len(data), len(value)))
        data.extend(value + bytes(-len(value) % 4))

    for one in found:
        if not one.single:
            forms = re.search(r"^Plural-Forms: (.*)$", one.texts[0], re.MULTILINE)
            put(0, 0, forms[1] if forms else "")
            continue
        for number, text in enumerate(one.texts):
            key = f"{one.single}\2{number}" if one.plural else one.single
            if text and text != one.single:
                put(sfh(key.encode()), len(one.texts), text)
    return (
        bytes(data)
        + b"".join(struct.pack(">4I", *row) for row in sorted(index))
        + struct.pack(">I", len(data))
    )


def sfh(key: bytes) -> int:
    """Paul Hsieh's hash, as LuCI has it: bytes of the end are signed."""
    value = len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        low, high = struct.unpack_from("<2H", key, at)
        value = (value + low) & 0xFFFFFFFF
        value = ((value << 16) ^ ((high << 11) ^ value)) & 0xFFFFFFFF
        value = (value + (value >> 11)) & 0xFFFFFFFF
    rest = key[whole:]
    if len(rest) >= 2:
        value = (value + struct.unpack("<H", rest[:2])[0]) & 0xFFFFFFFF
        if len(rest) == 3:
            value ^= (value << 16) & 0xFFFFFFFF
            value ^= (struct.unpack("b", rest[2:])[0] << 18) & 0xFFFFFFFF
            value = (value + (value >> 11)) & 0xFFFFFFFF
        else:
            value ^= (value << 11) & 0xFFFFFFFF
            value = (value + (value >> 17)) & 0xFFFFFFFF
    elif rest:
        value = (value + struct.unpack("b", rest)[0]) & 0xFFFFFFFF
        value ^= (value << 10) & 0xFFFFFFFF
        value = (value + (value >> 1)) & 0xFFFFFFFF
    for left, right in ((3, 5), (4, 17), (25, 6)):
        value ^= (value << left) & 0xFFFFFFFF
        value = (value + (value >> right)) & 0xFFFFFFFF
    return value


if __name__ == "__main__":
    main()
