# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a compose file: YAML or JSON, interpolation, `extends`, `include`, profiles (compose-spec, 05 to 15).

YAML needs PyYAML (package python3-yaml), which is imported only if a file is not JSON. Values are resolved like YAML
1.2, as compose does it: `22:22` is text and not a number in base 60, and `yes` and `on` are text.
"""

from __future__ import annotations

import json
import re
from collections import ChainMap
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from agent.errors import ConfigError

TEXT_MAX = 1024 * 1024  # bytes of a compose file
_NODES_MAX = 50_000  # values in a file with all aliases expanded
_DEPTH_MAX = 60
_REPLACED = "\0replaced"  # in a mapping: its keys with `!reset` or `!override`; YAML has no key with a NUL
_NAME = re.compile(r"[A-Za-z_]\w*")
_NESTED_MAX = 32  # levels of `${A:-${B:-...}}`


def parse_text(text: str) -> Any:
    """The document as dicts, lists, text, numbers, booleans and None. Raises ConfigError with the line of a mistake."""
    if len(text.encode(errors="surrogateescape")) > TEXT_MAX:
        raise ConfigError(f"the compose file is larger than {TEXT_MAX >> 20} MiB")
    if text.lstrip().startswith("{"):
        try:
            return _counted(json.loads(text))
        except ValueError:
            pass  # YAML's flow style begins with a brace too
        except RecursionError:
            raise ConfigError("the compose file is nested too deeply") from None
    return _counted(_yaml(text))


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ConfigError(
            "reading YAML needs PyYAML: install python3-yaml, or give the file as JSON"
            " (docker compose config --format json prints it)"
        ) from None

    loader = _loader()
    try:
        documents = [each for each in yaml.load_all(text, Loader=loader) if each is not None]
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(exc, "problem", None) or "it cannot be read"
        raise ConfigError(f"{where}this is not YAML: {problem}") from None
    except (ValueError, RecursionError, TypeError):
        raise ConfigError("the compose file cannot be read as YAML") from None
    # like compose: each further YAML document of the file is merged into the earlier ones
    made = documents[0] if documents else None
    for each in documents[1:]:
        made = merge(made, each)
    return made


def _loader() -> Any:
    """The PyYAML loader class for compose files: it makes only plain values, and resolves them like YAML 1.2."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Resolves plain values like YAML 1.2, and keeps compose's `!reset` and `!override` for `merge`."""

    Loader.yaml_implicit_resolvers = {}
    for tag, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
        ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("merge", r"<<", "<"),
    ):
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), list(first))

    def mapping(loader: Any, node: Any) -> Any:
        # PyYAML silently takes the last of two equal keys; compose refuses them
        seen: dict[str, int] = {}
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name in seen and name != "<<":
                line = key.start_mark.line + 1
                raise ConfigError(f"line {line}: {name!r} is there already, in line {seen[name]}")
            if name is not None:
                seen[name] = key.start_mark.line + 1
        loader.flatten_mapping(node)
        # keys stay text: a variable may be called TRUE, NULL or 0x1
        for at, (key, value) in enumerate(node.value):
            if isinstance(key, yaml.ScalarNode):
                text_key = yaml.ScalarNode("tag:yaml.org,2002:str", key.value, key.start_mark, key.end_mark)
                node.value[at] = (text_key, value)
        replaced = [key.value for key, value in node.value if value.tag in ("!reset", "!override")]
        node.value = [pair for pair in node.value if pair[1].tag != "!reset"]
        made = loader.construct_mapping(node, deep=True)
        return {**made, _REPLACED: replaced} if replaced else made

    def sequence(loader: Any, node: Any) -> Any:
        node.value = [item for item in node.value if item.tag != "!reset"]
        return loader.construct_sequence(node, deep=True)

    def number(_loader: Any, node: Any) -> Any:
        """Keeps the text of digits with a leading zero: `mode: 0444`, or a port that starts with 0."""
        value = str(node.value)
        if re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", value):
            return int(value)
        if value.startswith(("0x", "0o")):
            return int(value, 0)
        return value

    def plain(loader: Any, _suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return mapping(loader, node)
        if isinstance(node, yaml.SequenceNode):
            return sequence(loader, node)
        return None if node.value in ("", "null") else loader.construct_scalar(node)

    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    Loader.add_constructor("tag:yaml.org,2002:seq", sequence)
    Loader.add_constructor("tag:yaml.org,2002:int", number)
    # kept as text: a label of 1.10 would otherwise become 1.1
    Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: node.value)
    Loader.add_constructor("tag:yaml.org,2002:binary", _binary)
    Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: node.value)
    Loader.add_constructor("tag:yaml.org,2002:set", mapping)
    Loader.add_multi_constructor("!", plain)
    return Loader


def _binary(loader: Any, node: Any) -> Any:
    return loader.construct_yaml_binary(node).decode(errors="replace")


def _counted(document: Any) -> Any:
    """Limits the size with aliases expanded, because nested aliases grow without bounds (a few lines can
    mean gigabytes).
    """
    left = _NODES_MAX

    def walk(value: Any, depth: int) -> None:
        nonlocal left
        # count while walking: the document in memory is small, since aliases share their values
        left -= 1
        if left < 0 or depth > _DEPTH_MAX:
            raise ConfigError("the compose file expands to too many values")
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(item, depth + 1)

    walk(document, 0)
    return document


# interpolation


class Interpolation:
    """Replaces `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, `${NAME:+other}` and `$$` (compose-spec, 12)."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables
        self.used: set[str] = set()  # names that were expanded
        self.unset: dict[str, None] = {}  # names that became nothing; a dict keeps their order
        self.refused: dict[str, str] = {}  # name -> the file's own message (`${NAME:?message}`)
        self.odd: dict[str, None] = {}  # texts that begin like a variable, but are not valid ones

    def value(self, value: Any) -> Any:
        """Replaces variables in the values of mappings and lists, not in keys."""
        if isinstance(value, dict):
            return {key: self.value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return self.text(value) if isinstance(value, str) and "$" in value else value

    def text(self, text: str) -> str:
        """Replaces variables in one text."""
        # without a regular expression, because braces nest, as in `${A:-${B}}`
        made, at, closings = [], 0, _closings(text)
        while (dollar := text.find("$", at)) >= 0:
            made.append(text[at:dollar])
            at = dollar + 1
            # `$$` is compose's escape for a dollar sign
            if text.startswith("$", at):
                made.append("$")
                at += 1
            elif text.startswith("{", at):
                end = closings.get(at, 0)
                made.append(self._braced(text[at + 1 : end]) if end else "${")
                if not end:
                    self.odd[text[dollar : dollar + 24]] = None
                at = end + 1 if end else at + 1
            elif found := _NAME.match(text, at):
                made.append(self._get(found[0]))
                at = found.end()
            else:
                # any other dollar sign is taken literally and reported; compose refuses it
                made.append("$")
                self.odd[text[dollar : dollar + 2]] = None
        return "".join((*made, text[at:]))

    def _braced(self, inner: str) -> str:
        found = _NAME.match(inner)
        if found is None:
            self.odd["${" + inner + "}"] = None
            return "${" + inner + "}"
        name, rest = found[0], inner[found.end() :]
        self.used.add(name)
        operator = next((o for o in (":-", ":?", ":+", "-", "?", "+") if rest.startswith(o)), "")
        if rest and not operator:
            self.odd["${" + inner + "}"] = None
        if not operator:
            return self._get(name)
        value, argument = self.variables.get(name), rest[len(operator) :]
        # with a colon an empty value counts as unset, as in a shell
        present = bool(value) if operator.startswith(":") else value is not None
        if operator.endswith("-"):
            return value or "" if present else self.text(argument)
        if operator.endswith("+"):
            return self.text(argument) if present else ""
        if not present:
            self.refused[name] = self.text(argument)
        return value or ""

    def _get(self, name: str) -> str:
        self.used.add(name)
        if name not in self.variables:
            self.unset[name] = None
        return self.variables.get(name, "")


def _closings(text: str) -> dict[int, int]:
    """Where each brace of a text opens, and where it closes. Braces around more than _NESTED_MAX levels are left out."""
    open_braces: list[int] = []
    levels: list[int] = []  # within each of them, so far
    found = {}
    # one pass for the whole text: a search from each brace takes minutes for thousands that never close
    for brace in re.finditer("[{}]", text):
        if brace[0] == "{":
            open_braces.append(brace.start())
            levels.append(1)
        elif open_braces:
            level = levels.pop()
            start = open_braces.pop()
            if level <= _NESTED_MAX:
                found[start] = brace.start()
            if levels:
                levels[-1] = max(levels[-1], level + 1)
    return found


_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    '"': '"',
    "\\": "\\",
    "$": "$$",
}
_ESCAPE = re.compile(r'\\(?:([abfnrtv"\\$])|0([0-7]{3}))')
# the name of a line in a .env file, and what ends it
_ENV_NAME = re.compile(r"(?:export[ \t]+)?([^=:\n]*)([=:\n]?)[ \t\r\f\v]*")
_ENV_GAP = re.compile(r"\s*(?:#[^\n]*|(?=\S))")  # between two settings: white space, and comments
_ENV_WORD = re.compile(r"[\w.\-\[\]]*")
# a quoted value, which may go over several lines
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)


def parse_env(text: str, variables: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """A `.env` file as compose-go's dotenv reads it: `NAME=value`, `export`, comments, quotes, also over several lines.

    `variables`: what its values may refer to, before those of the file. Raises ConfigError with the line of a mistake.
    """
    found: dict[str, str] = {}
    names = Interpolation(ChainMap(dict(variables), found))
    text, at, line, counted = text.removeprefix("\ufeff"), 0, 1, 0
    while gap := _ENV_GAP.match(text, at):
        at = gap.end()
        if "#" in gap[0]:
            continue
        line, counted = line + text.count("\n", counted, at), at
        head = _ENV_NAME.match(text, at)
        assert head is not None  # it matches anything
        name, at = head[1].rstrip(), head.end()
        if not _ENV_WORD.fullmatch(name):
            raise ConfigError(f"line {line}: this is not a variable; expected NAME=value")
        if head[2] in ("", "\n"):  # a name alone stands for the value that the shell has
            found.update({name: variables[name]} if name in variables else {})
            continue
        if text[at : at + 1] in ("'", '"'):
            quoted = _QUOTED.match(text, at)
            if quoted is None:
                raise ConfigError(f"line {line}: the quote opened for {name} is never closed")
            at = quoted.end()
            single, double = quoted[1], quoted[2]
            found[name] = single.replace("\\'", "'") if double is None else names.text(_unescaped(double))
        else:
            start, end = at, text.find("\n", at)
            at = end if end >= 0 else len(text)
            found[name] = names.text(text[start:at].partition(" #")[0].rstrip())
        for unset, message in names.refused.items():
            raise ConfigError(
                f"line {line}: the variable {unset} is not set: {message or 'the file demands it'}"
            )
    found.pop("", None)
    return found


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda m: _ESCAPES[m[1]] if m[1] else chr(int(m[2], 8) & 255), text)


# extends and include


# compose-go, override/merge.go and uncity.go
_PAIRS = ("environment", "labels", "annotations", "sysctls")
_NAMED = ("depends_on", "networks")  # a list of names, or a mapping
_WORDS = ("dns", "dns_opt", "dns_search", "env_file", "label_file", "tmpfs")  # a list, or one value
_OVERRIDDEN = ("command", "entrypoint", "test")


def resolve_extends(
    services: Mapping[str, Any], read: Callable[[str], Mapping[str, Any]] | None
) -> dict[str, Any]:
    """The services with what they extend merged in. `read` returns the services of another file; None if no file can
    be read.

    Raises ConfigError for a circle, or for a service that does not exist.
    """
    done: dict[str, Any] = {}

    def whole(
        name: str, among: Mapping[str, Any], chain: tuple[str, ...], source: str = ""
    ) -> dict[str, Any]:
        # by file and name: a circle may go through several files that each have a service of that name
        here = f"{source}: {name}" if source else name
        if here in chain:
            raise ConfigError(f"services.{name}.extends: it extends itself through {' and '.join(chain)}")
        service = among.get(name)
        if not isinstance(service, dict):
            raise ConfigError(
                f"services.{chain[-1] if chain else name}.extends: there is no service {name!r}"
            )
        base = service.get("extends")
        if not base:
            return dict(service)
        wanted, file = (base.get("service"), base.get("file")) if isinstance(base, dict) else (base, None)
        if not isinstance(wanted, str):
            raise ConfigError(f"services.{name}.extends: expected the name of a service")
        if file and read is None:
            return {**service, "extends": base}
        others, there = (read(str(file)), str(file)) if file and read is not None else (among, source)
        own = {key: value for key, value in service.items() if key != "extends"}
        merged: dict[str, Any] = merge(whole(wanted, others, (*chain, here), there), own)
        return merged

    for name in services:
        done[name] = whole(name, services, ()) if isinstance(services[name], dict) else services[name]
    settled: dict[str, Any] = without_marks(done)
    for service in settled.values():
        for key in ("volumes", "devices") if isinstance(service, dict) else ():
            if isinstance(service.get(key), list):
                # of two entries for one target the later one counts, also within a service
                service[key] = list({_target(item): item for item in service[key]}.values())
    return settled


def merge(base: Any, over: Any, key: str = "") -> Any:
    """Merges `over` into `base` as compose does: mappings by key, lists by joining; other values are replaced."""
    if over is None and isinstance(base, dict | list):
        return base
    if key in _PAIRS:
        base, over = pairs(base), pairs(over)
    elif key in _NAMED:
        base, over = _by_name(base), _by_name(over)
    elif key in _WORDS:
        base, over = _as_list(base), _as_list(over)
    if isinstance(base, dict) and isinstance(over, dict):
        # options of another log driver have no meaning for the new one
        if key == "logging" and None is not base.get("driver") != over.get("driver") is not None:
            return over
        replaced = over.get(_REPLACED, ())
        base = {name: value for name, value in base.items() if name not in replaced}
        joined = {
            name: merge(base[name], value, name) if name in base else value for name, value in over.items()
        }
        return {**base, **joined}
    if isinstance(base, list) and isinstance(over, list) and key not in _OVERRIDDEN:
        # two entries cannot have the same target in the container: the later one wins
        if key in ("volumes", "devices"):
            targets = {_target(item) for item in over}
            base = [item for item in base if _target(item) not in targets]
        return [*base, *(item for item in over if item not in base)]
    return over


def without_marks(value: Any, kept: tuple[str, ...] = ()) -> Any:
    """The values without the marks of `!reset` and `!override`, once nothing is merged any more; those below the keys
    `kept` keep theirs.
    """
    if isinstance(value, dict):
        return {
            key: item if key in kept else without_marks(item)
            for key, item in value.items()
            if key != _REPLACED
        }
    return [without_marks(item) for item in value] if isinstance(value, list) else value


def _by_name(value: Any) -> Any:
    return (
        dict.fromkeys(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value
    )


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _target(item: Any) -> str:
    if isinstance(item, dict):
        return str(item.get("target", ""))
    parts = str(item).split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def pairs(value: Any) -> dict[str, Any]:
    """A mapping, or a list of `key=value`, as a mapping; None stands for a key without a value."""
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, list):
        # `- TZ: Europe/Berlin` is a mapping inside the list, and means the same as `- TZ=Europe/Berlin`
        found: dict[str, Any] = {}
        for item in value:
            if isinstance(item, dict):
                found |= pairs(item)
            else:
                key, equals, text = str(item).partition("=")
                found[key] = text if equals else None
        return found
    return {}
