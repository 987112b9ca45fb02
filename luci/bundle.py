# SPDX-License-Identifier: GPL-2.0-or-later
"""Packs the pages' modules, as the package has them: LuCI fetches each module by a request of its own, and a page needs
about 25. Run on a copy: `bundle.py HTDOCS` replaces the modules under it.

`ucidockd/app.js` has the modules that pages without forms need, `ucidockd/forms.js` all others; a page, and a module that
is loaded later (`L.require('ucidockd.x')`) and that no page begins with, stays a file and takes them from there; a page
fetches them itself (`frame.js`). Each module stays a function with its needs as parameters, as LuCI makes them. The
schemas are packed with the module that reads them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

_REQUIRE = re.compile(r"^'require ([^' ]+)(?: as ([A-Za-z_$][\w$]*))?';\n", re.MULTILINE)
_LATER = re.compile(r"L\.require\('(ucidockd\.[\w.]+)'\)")
_OWN = "ucidockd."
_FORMS = "ucidockd.editor"
_SCHEMAS = "ucidockd.schemas"
_FRAME = Path(__file__).with_name("frame.js")
_LICENSE = "// SPDX-License-Identifier: GPL-2.0-or-later\n"


def main() -> None:
    """Packs the folder that the command names."""
    resources = Path(sys.argv[1]) / "luci-static/resources"
    sources = {
        f"{_OWN}{path.stem}": path.read_text() for path in sorted((resources / "ucidockd").glob("*.js"))
    }
    views = {path: path.read_text() for path in sorted((resources / "view/ucidockd").glob("*.js"))}
    later = {name for text in (*sources.values(), *views.values()) for name in _LATER.findall(text)}
    roots = {**views, **{resources / f"{name.replace('.', '/')}.js": sources[name] for name in later}}

    without_forms = [text for text in views.values() if _FORMS not in _ordered(text, sources)]
    plain = list(dict.fromkeys(name for text in without_forms for name in _ordered(text, sources)))
    every = dict.fromkeys(name for text in roots.values() for name in _ordered(text, sources))
    shared = {"app": plain, "forms": [name for name in every if name not in plain]}
    place = {name: bundle for bundle, names in shared.items() for name in names}
    # what is loaded later and is in a bundle all the same comes with that one
    sources = {name: _with_bundles(text, place) for name, text in sources.items()}
    roots = {path: _with_bundles(text, place) for path, text in roots.items()}
    for name in sources:
        (resources / f"{name.replace('.', '/')}.js").unlink()
    for bundle, names in shared.items():
        packed = _bundle(names, sources, place, bundle)
        (resources / f"ucidockd/{bundle}.js").write_text(packed)
    for path, text in roots.items():
        if path not in views and f"{_OWN}{path.stem}" in place:
            continue
        path.write_text(_page(text, place) if path in views else _root(text, place))


def _with_bundles(text: str, place: dict[str, str]) -> str:
    """With `L.require` of a bundle where it has the module."""
    return _LATER.sub(
        lambda found: (
            f"L.require('{_OWN}{place[found[1]]}').then(one => one.made['{found[1]}'])"
            if found[1] in place
            else found[0]
        ),
        text,
    )


def _needs(text: str) -> list[tuple[str, str]]:
    """[(module, parameter), ...] of the 'require' lines."""
    return [(name, alias or re.sub(r"\W", "_", name)) for name, alias in _REQUIRE.findall(text)]


def _ordered(text: str, sources: dict[str, str]) -> Iterator[str]:
    """The modules that it needs, those first that others need."""
    for name, _ in _needs(text):
        if name.startswith(_OWN):
            yield from _ordered(sources[name], sources)
            yield name


def _slim(code: str) -> str:
    """Without indentation and lines that are comments: no text of the pages goes over several lines."""
    return re.sub(r"^[\t ]+", "", re.sub(r"^[\t ]*//.*\n", "", code, flags=re.MULTILINE), flags=re.MULTILINE)


def _bundle(names: list[str], sources: dict[str, str], place: dict[str, str], bundle: str) -> str:
    needs = [need for name in names for need in _needs(sources[name])]
    foreign = sorted({name for name, _ in needs if not name.startswith(_OWN)} | {"baseclass"})
    others = sorted({place[name] for name, _ in needs if name.startswith(_OWN)} - {bundle})
    lines = [_LICENSE, "'use strict';\n"]
    lines += [f"'require {name}';\n" for name in foreign]
    lines += [f"'require {_OWN}{name} as {name}';\n" for name in others]
    lines.append("\nconst made = {};\n")
    for name in names:
        text, given = sources[name], _needs(sources[name])
        values = ", ".join(_value(need, place, bundle) for need, _ in given)
        body = _slim(_REQUIRE.sub("", text)).strip()
        lines.append(
            f"\nmade['{name}'] = new ((function({', '.join(alias for _, alias in given)}) {{\n{body}\n}})({values}))();\n"
        )
    if _SCHEMAS in names:
        lines.append(f"\nmade['{_SCHEMAS}'].packed = {_packed_schemas()};\n")
    lines.append("\nreturn baseclass.extend({ made });\n")
    return "".join(lines)


def _packed_schemas() -> str:
    """{section type: schema}, as JSON."""
    folder = Path(__file__).parents[1] / "schemas"
    found = {
        path.name.partition(".")[0]: json.loads(path.read_text())
        for path in sorted(folder.glob("*.schema.json"))
    }
    return json.dumps(found, separators=(",", ":"))


def _value(name: str, place: dict[str, str], bundle: str) -> str:
    if not name.startswith(_OWN):
        return name
    return f"{'' if place[name] == bundle else place[name] + '.'}made['{name}']"


def _root(text: str, place: dict[str, str]) -> str:
    """A module that is loaded later: its own file, with its modules from the bundles."""
    comment, foreign, own, code = _parts(text, place)
    head = [f"'require {_OWN}{bundle} as {_name(bundle)}';\n" for bundle in _bundles(text, place)]
    return f"{comment}\n'use strict';\n{foreign}{''.join(head)}\n{own}\n{code}"


def _page(text: str, place: dict[str, str]) -> str:
    """A page in its frame, which fetches the bundles."""
    comment, foreign, own, code = _parts(text, place)
    bundles = _bundles(text, place)
    names, given = [f"{_OWN}{bundle}" for bundle in bundles], ", ".join(map(_name, bundles))
    frame = _slim(_REQUIRE.sub("", _FRAME.read_text()).partition("'use strict';\n")[2])
    made = (
        f"const BUNDLES = {json.dumps(names)};\nconst make = ({given}) => {{\n{own}\n{code.rstrip()}\n}};\n"
    )
    return f"{comment}\n'use strict';\n{foreign}\n{made}{frame}"


def _parts(text: str, place: dict[str, str]) -> tuple[str, str, str, str]:
    """The comment at the top, the lines that require LuCI's modules, those that take ours from bundles, and the code."""
    foreign = [f"'require {name} as {alias}';\n" for name, alias in _needs(text) if not name.startswith(_OWN)]
    own = [
        f"const {alias} = {_name(place[name])}.made['{name}'];\n"
        for name, alias in _needs(text)
        if name.startswith(_OWN)
    ]
    body = _REQUIRE.sub("", text).replace("'use strict';\n", "", 1)
    comment, _, code = body.partition("\n\n")
    return comment, "".join(foreign), "".join(own), code


def _bundles(text: str, place: dict[str, str]) -> list[str]:
    return sorted({place[name] for name, _ in _needs(text) if name.startswith(_OWN)})


def _name(bundle: str) -> str:
    return f"ucidockd_{bundle}"


if __name__ == "__main__":
    main()
